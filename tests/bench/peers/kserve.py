"""KServe: a custom predictor in the server's process; no gRPC, no line per request, metrics on. It listens on every address: that
is not an option of its.

python -m tests.bench.peers.kserve MODEL.onnx PORT, in KServe's own environment.
"""

import logging
import sys

from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response

from tests.bench.session import session


class Predictor(Model):
    def __init__(self, path: str) -> None:
        super().__init__("model")
        self._session = session(path)
        self._input = self._session.get_inputs()[0].name
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        x = payload.inputs[0].as_numpy()
        [y] = self._session.run(None, {self._input: x})
        return get_predict_response(payload, y, self.name)


def main() -> None:
    path, port = sys.argv[1], int(sys.argv[2])
    server = ModelServer(http_port=port, enable_grpc=False, enable_latency_logging=False)
    for name in ("uvicorn.access", "kserve.trace"):  # three lines per request otherwise
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start([Predictor(path)])


if __name__ == "__main__":
    main()

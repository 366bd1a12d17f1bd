"""MLServer: a custom runtime, inference in the server's process (`parallel_workers` 0), logging of requests off, metrics on.

python -m tests.bench.peers.mlserver MODEL.onnx PORT, in MLServer's own environment.
"""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters, Settings
from mlserver.types import InferenceRequest, InferenceResponse

from tests.bench.session import session


class Model(MLModel):
    async def load(self) -> bool:
        self._session = session(self.settings.parameters.uri)
        self._input = self._session.get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        [y] = self._session.run(None, {self._input: x})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])


def main() -> None:
    path, port = sys.argv[1], int(sys.argv[2])
    settings = Settings(
        debug=False,  # its default logs every request
        parallel_workers=0,
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_port=0,
    )
    model = ModelSettings(name="model", implementation=Model, parameters=ModelParameters(uri=path))
    asyncio.run(MLServer(settings).start([model]))


if __name__ == "__main__":
    main()

"""LitServe: one API process and one worker process, as it comes; its log at warnings.

python -m tests.bench.peers.litserve MODEL.onnx PORT, in LitServe's own environment.
"""

import sys
from typing import Any

import litserve as ls
import numpy as np

from tests.bench.session import session


class Predictor(ls.LitAPI):
    def __init__(self, path: str) -> None:
        super().__init__(api_path="/predict")
        self._path = path

    def setup(self, device: str) -> None:
        self._session = session(self._path)
        self._input = self._session.get_inputs()[0].name

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        return np.array([request["x"]], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        [y] = self._session.run(None, {self._input: x})
        return y

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"y": output[0].tolist()}


def main() -> None:
    path, port = sys.argv[1], int(sys.argv[2])
    server = ls.LitServer(Predictor(path), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()

"""BentoML: `bentoml serve` with one worker, access log off, metrics on. Its supervisor and its worker are two processes.

python -m tests.bench.peers.bentoml MODEL.onnx PORT, in BentoML's own environment.
"""

import os
import sys
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import DType

from tests.bench.session import session


@bentoml.service(workers=1, metrics={"enabled": True}, logging={"access": {"enabled": False}})
class Predictor:
    def __init__(self) -> None:
        self._session = session(os.environ["BENCH_MODEL"])
        self._input = self._session.get_inputs()[0].name

    @bentoml.api(route="/predict")
    def predict(self, x: Annotated[np.ndarray, DType("float32")]) -> dict[str, Any]:
        [y] = self._session.run(None, {self._input: x[None]})
        return {"y": y[0].tolist()}


def main() -> None:
    path, port = sys.argv[1], sys.argv[2]
    command = [sys.executable, "-m", "bentoml", "serve", "tests.bench.peers.bentoml:Predictor", "--host", "127.0.0.1"]
    environment = os.environ | {"BENCH_MODEL": path, "BENTOML_DO_NOT_TRACK": "True"}
    os.execve(sys.executable, [*command, "--port", port], environment)


if __name__ == "__main__":
    main()

"""Mosec: its Rust front and one worker process that gets batches of up to 32 requests, gathered for 1 ms.

python -m tests.bench.peers.mosec MODEL.onnx PORT, in Mosec's own environment.
"""

import os
import sys
from typing import Any

import numpy as np
from mosec import Server, Worker

from tests.bench.session import session


class Predictor(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._session = session(os.environ["BENCH_MODEL"])
        self._input = self._session.get_inputs()[0].name

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        x = np.array([row["x"] for row in data], np.float32)
        [y] = self._session.run(None, {self._input: x})
        return [{"y": row} for row in y.tolist()]


def main() -> None:
    path, port = sys.argv[1], sys.argv[2]
    os.environ |= {"BENCH_MODEL": path, "MOSEC_ADDRESS": "127.0.0.1", "MOSEC_PORT": port, "MOSEC_LOG_LEVEL": "error"}
    server = Server()
    server.append_worker(Predictor, num=1, max_batch_size=32, max_wait_time=1)
    server.run()


if __name__ == "__main__":
    main()

"""How long a graph takes to load in a process that has loaded none: what the first request after a container's start waits for.

The file is in the page cache, as it is right after the gateway has verified its digest. One process imports onnxruntime and forks
for each load, so that the import is not counted and no load finds what another has left. Run as a module, by `measure`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median_low

import msgspec

from trainers.errors import ExportError
from trainers.evaluate import serving

LOADS = 5
TIMEOUT_S = 600


class Opening(msgspec.Struct, frozen=True):
    """A file and how the gateway opens it."""

    path: str
    optimized_by: str
    only_rows_vary: bool


def measure(openings: Mapping[str, Opening]) -> dict[str, int]:
    """Nanoseconds from file to session, the median of `LOADS`, by name. Loads take turns. Raises `ExportError`."""
    command = [sys.executable, "-m", "trainers.evaluate.coldload"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # the very same packages
    asked = msgspec.json.encode(list(openings.values()))
    done = subprocess.run(command, input=asked, env=env, capture_output=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-300:]
        raise ExportError(f"a graph cannot be loaded in a process of its own: {reason}")
    samples: list[list[int]] = json.loads(done.stdout)
    return {name: median_low(taken) for name, taken in zip(openings, samples, strict=True)}


def _measure_here(openings: list[Opening]) -> list[list[int]]:
    samples: list[list[int]] = [[] for _ in openings]
    for _ in range(LOADS):
        for opening, taken in zip(openings, samples, strict=True):
            taken.append(_in_a_fork(opening))
    return samples


def _in_a_fork(opening: Opening) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        began = time.perf_counter_ns()
        serving.open_session(
            Path(opening.path), optimized_by=opening.optimized_by, only_rows_vary=opening.only_rows_vary
        )
        os.write(writing, str(time.perf_counter_ns() - began).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        taken = pipe.read()
    os.waitpid(child, 0)
    return int(taken)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure_here(msgspec.json.decode(sys.stdin.buffer.read(), type=list[Opening]))))

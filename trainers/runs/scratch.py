"""The folder that an attempt's stages work in: the run's, unless another attempt on this machine is still at work there.

Two attempts in one folder would delete each other's files half written. Called by `trainers.attempt`.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

LOCK = "lock"
"""No stage has this name. The kernel gives the lock back when its process ends, however it does."""


@contextlib.contextmanager
def own(folder: Path, attempt: int) -> Iterator[Path]:
    """`folder`, with what earlier attempts left there; else an empty one inside of it, which is gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = folder / f"attempt-{attempt}"
            try:
                yield mine
            finally:
                shutil.rmtree(mine, ignore_errors=True)
        else:
            yield folder

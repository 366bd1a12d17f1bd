"""Files that are either whole or absent, on disk when a call returns. Blocking; knows folders, not keys or stores.

`LocalStore` runs all of this in threads. A crash between two steps leaves at most an unfinished file in the staging folder.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.errors import StoreUnavailable

LOCK_WAIT_S = 10.0  # a holder hashes, writes and syncs one small object: longer means it hangs
LOCK_POLL_S = 0.005  # about one fsync
STALE_S = 24 * 3600.0  # no upload takes a day: such a file's writer was killed


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[BinaryIO]:
    """A new file to fill; gone at the end unless it was moved to its place. `folder` is on the target's file system.

    Where it cannot be taken away, as on a disk that has just become read-only, it is left to `sweep`: what is written is in place.
    """
    path = folder / secrets.token_hex(16)
    with path.open("xb") as file:
        try:
            yield file
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def create(file: BinaryIO, target: Path, root: Path) -> None:
    """Give the staged file its name, making folders below `root`; FileExistsError when the name is taken."""
    _flush(file)
    for folder in reversed([parent for parent in target.parents if parent != root and root in parent.parents]):
        folder.mkdir(exist_ok=True)  # not `parents=True`, which would bring back a root that was moved away
    os.link(file.name, target)
    # Every folder up to the root, even one that was there: another writer may have made it and not synced it yet.
    for folder in target.parents:
        _sync_folder(folder)
        if folder == root:
            return


def replace(file: BinaryIO, target: Path) -> None:
    """Put the staged file in the place of `target`; a reader sees all of one or all of the other."""
    _flush(file)
    Path(file.name).replace(target)
    _sync_folder(target.parent)


def remove(target: Path) -> None:
    """Remove a file and its name for good."""
    target.unlink()
    _sync_folder(target.parent)


def make_root(root: Path) -> None:
    """Create `root` and the folders above it where they are missing."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the only lock on `path` among all threads and processes; the file stays, for unlinking it would split the lock."""
    with path.open("ab") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"{path} has been locked for {LOCK_WAIT_S:.0f} s; is a process that holds it stopped?"
                )
            time.sleep(LOCK_POLL_S)
        yield


def sweep(folder: Path, *, now_s: float) -> None:
    """Remove what killed writers left in the staging folder."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and now_s - path.stat().st_mtime > STALE_S:
                path.unlink()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

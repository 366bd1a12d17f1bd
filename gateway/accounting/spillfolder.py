"""Local disk for what the ledger cannot write to its store: one folder for each life of a gateway, held by a lock while it lives.

Blocking, called in threads. A file appears whole and on disk or not at all. A folder whose lock nobody holds is a dead life's, and
belongs to whoever takes it; this also works for several gateways that share one disk. Fargate's disk dies with its task: then only
restarts of the process in place find anything.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.errors import StoreUnavailable
from gateway.objectstore import durable

ASIDE = "set-aside"
LOCK = ".lock"

_LIFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.\d{1,19}")
_UNFINISHED = re.compile(r"[0-9a-f]{32}")


class SpillFolder:
    """One life's files. The folder is made when the first file is written, and gone after `close` when it is empty."""

    def __init__(self, root: Path, life: str, *, lock: BinaryIO | None = None) -> None:
        self.name = str(root / life)
        self._root = root
        self._folder = root / life
        self._lock = lock

    def names(self) -> list[str]:
        """Sorted. What a crash left unfinished is removed: it never had a name."""
        found = []
        for path in sorted(self._folder.iterdir()):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)
            elif path.name != LOCK:
                found.append(path.name)
        return found

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Raises `OSError`; then the file is given up, never synced again, and nothing has its name or all of it has."""
        self._hold()
        with durable.staged(self._folder) as file:
            file.write(data)
            durable.replace(file, self._folder / name)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        """Out of the way, for a person to look at."""
        aside = self._root / ASIDE
        aside.mkdir(exist_ok=True, mode=0o700)
        (self._folder / name).replace(aside / f"{self._folder.name}-{name}")

    def close(self) -> None:
        """Let go. A folder with files in it waits for the next life."""
        if self._lock is None:
            return
        with self._lock, contextlib.suppress(OSError), _alone(self._root):
            if [path.name for path in self._folder.iterdir()] == [LOCK]:
                (self._folder / LOCK).unlink()
                self._folder.rmdir()
        self._lock = None

    def _hold(self) -> None:
        if self._lock is not None:
            return
        _make(self._root)
        _require_ours(self._root)
        with _alone(self._root):  # nobody takes the folder for a dead life's before we hold it
            self._folder.mkdir(exist_ok=True, mode=0o700)
            self._lock = _taken(self._folder)
        if self._lock is None:
            raise BlockingIOError(errno.EAGAIN, f"{self._folder} is held by another process")


class SpillRoot:
    """The folders of all lives that write to one store."""

    def __init__(self, folder: Path, store_url: str) -> None:
        self._root = folder / hashlib.sha256(store_url.encode()).hexdigest()[:16]

    def own(self, container: str, boot_ns: int) -> SpillFolder:
        """This life's, not made yet."""
        return SpillFolder(self._root, f"{container}.{boot_ns}")

    def left(self) -> list[SpillFolder]:
        """Of dead lives, by container and boot, now held by us. Raises `OSError`."""
        if not self._root.is_dir():
            return []
        _require_ours(self._root)
        with _alone(self._root):
            paths = [path for path in sorted(self._root.iterdir()) if _LIFE.fullmatch(path.name) and path.is_dir()]
            return [
                SpillFolder(self._root, path.name, lock=lock) for path in paths if (lock := _taken(path)) is not None
            ]


def _make(root: Path) -> None:
    """Like the cache's folder, which may be one of those made here: nobody else's business."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True, mode=0o700)


def _taken(folder: Path) -> BinaryIO | None:
    """The folder's lock, or None when a process that lives has it."""
    file = (folder / LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time makes, takes and removes folders."""
    try:
        with durable.locked(root / LOCK):
            yield
    except StoreUnavailable as error:  # whoever holds it hangs
        raise BlockingIOError(errno.EAGAIN, str(error)) from error


def _require_ours(root: Path) -> None:
    if root.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to another user, who could forge costs; set ledger.spill_dir")

"""A folder of files on local disk, bounded in bytes, that several processes share and none may break. Blocking; knows no store.

A file appears under its name by rename, whole. Whoever uses one holds a shared lock on it, so that only files nobody uses leave
when room is needed, the least recently used first: the time of last use is the file's modification time. What a killed process
was writing carries no lock any more and is swept by the next one that needs room.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.errors import CacheUnusable
from gateway.objectstore import durable

LOCK = ".lock"
PARTIAL = ".partial-"
READ_BYTES = 1 << 20
COMMIT_TRIES = 8
"""Each one lost means that another process's file took the name and was gone, or damaged, when it was to be used."""

_OURS = re.compile(r"[0-9a-f]{64}-")
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class HeldFile:
    """A file that stays where it is until `close`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file

    def close(self) -> None:
        self._file.close()


class Partial:
    """A file being filled. `write` may be called from several threads for different places; `discard` after `name` is nothing."""

    def __init__(self, path: Path, file: BinaryIO, *, is_linked: bool = False) -> None:
        self.is_linked = is_linked
        self._path = path
        self._file = file
        self._is_open = True

    def write(self, body: bytes, at: int) -> None:
        view = memoryview(body)
        while view:
            written = os.pwrite(self._file.fileno(), view, at)
            view, at = view[written:], at + written

    def digest(self, digest: "hashlib._Hash", start: int, stop: int) -> None:
        """Add bytes [start, stop), or up to the end of the file; just written, they come from memory and not from the disk."""
        while start < stop and (block := os.pread(self._file.fileno(), min(READ_BYTES, stop - start), start)):
            digest.update(block)
            start += len(block)

    def name(self, target: Path) -> HeldFile:
        """Give it its name, which nobody has; it is held from before it can be seen."""
        self._path.replace(target)
        self._is_open = False
        return HeldFile(target, self._file)

    def discard(self) -> None:
        if self._is_open:
            self._is_open = False
            self._file.close()
            self._path.unlink(missing_ok=True)


class CacheFolder:
    """At most `bytes_max` bytes, as long as every process that shares the folder says the same."""

    def __init__(self, folder: Path, *, bytes_max: int) -> None:
        self.folder = folder
        self._bytes_max = bytes_max

    def hold(self, name: str, sha256: str) -> HeldFile | None:
        """The file with this name, held, when it is there and has this digest: its disk is not ours to trust across restarts."""
        path = self.folder / name
        with contextlib.ExitStack() as undo:
            try:
                self._require_ours()
                file = undo.enter_context(path.open("rb"))
            except FileNotFoundError:
                return None
            fcntl.flock(file, fcntl.LOCK_SH)
            if not _is_at(path, file):
                return None
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                self._remove(path, file)
                return None
            with contextlib.suppress(PermissionError):
                os.utime(path)
            undo.pop_all()
            return HeldFile(path, file)

    def partial(self, size: int) -> Partial:
        """Room for `size` bytes, reserved on the disk now. Raises `CacheUnusable` when there can be none, or `OSError`."""
        with self._locked():
            self._make_room(size)
            handle, path = tempfile.mkstemp(dir=self.folder, prefix=PARTIAL)
            partial = Partial(Path(path), os.fdopen(handle, "w+b", buffering=0))
            try:
                fcntl.flock(handle, fcntl.LOCK_SH)
                _reserve(handle, size)
            except BaseException:
                partial.discard()
                raise
            return partial

    def linked(self, source: Path, size: int) -> Partial | None:
        """Another file of this disk under a name of ours, not copied and not to be written; None where that cannot be done."""
        with self._locked():
            self._make_room(size)
            path = self.folder / f"{PARTIAL}{os.getpid()}-{os.urandom(8).hex()}"
            try:
                os.link(source, path)
            except OSError:  # another file system, another owner, no such source: the store will say which
                return None
            file = path.open("rb", buffering=0)
            fcntl.flock(file, fcntl.LOCK_SH)
            return Partial(path, file, is_linked=True)

    def commit(self, partial: Partial, name: str, sha256: str) -> HeldFile:
        """The file under this name, held: the partial one, or what another process put there meanwhile, when it has this digest.

        A name is given to one file only: whoever holds that file, and is about to open it by its name, finds it there.
        """
        path = self.folder / name
        for _ in range(COMMIT_TRIES):
            with self._locked():
                if not path.exists():
                    return partial.name(path)
            if held := self.hold(name, sha256):
                return held
        raise CacheUnusable(f"cache {self.folder}: {name} comes and goes (is repository.cache_bytes_max too small?)")

    def _remove(self, path: Path, damaged: BinaryIO) -> None:
        """Unless another file has the name by now. Who uses this one read it before it was damaged, or fails."""
        with self._locked():
            if _is_at(path, damaged):
                path.unlink()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time makes room and reserves it, or gives a name: two never count on the same bytes or file."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._require_ours()
        with durable.locked(self.folder / LOCK):  # not longer than its own deadline
            yield

    def _require_ours(self) -> None:
        if self.folder.stat().st_uid != os.getuid():
            raise PermissionError(
                errno.EPERM, "belongs to another user, who could swap files; set repository.cache_dir"
            )

    def _make_room(self, size: int) -> None:
        if size > self._bytes_max:
            raise CacheUnusable(
                f"cache {self.folder}: a file of {size:,} bytes does not fit (repository.cache_bytes_max is {self._bytes_max:,})"
            )
        entries = self._entries()
        held = 0
        for entry in entries:
            if entry.is_partial and _remove_unused(entry.path):
                continue  # its writer is gone
            held += entry.size
        for entry in entries:
            if held + size <= self._bytes_max:
                return
            if not entry.is_partial and _remove_unused(entry.path):
                held -= entry.size
        if held + size > self._bytes_max:
            raise CacheUnusable(
                f"cache {self.folder}: {size:,} bytes do not fit beside the {held:,} in use "
                f"(repository.cache_bytes_max is {self._bytes_max:,})"
            )

    def _entries(self) -> list["_Entry"]:
        """Our files, the least recently used first. Should we be pointed at a folder with others, those are left alone."""
        rows = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                is_partial = path.name.startswith(PARTIAL)
                if is_partial or _OURS.match(path.name):
                    state = path.stat()
                    rows.append(_Entry(path, state.st_size, state.st_mtime_ns, is_partial))
        return sorted(rows, key=lambda row: row.used_ns)


class _Entry(msgspec.Struct, frozen=True):
    path: Path
    size: int
    used_ns: int
    is_partial: bool


def _is_at(path: Path, file: BinaryIO) -> bool:
    """False when the name was removed, or given to another file, before we held this one."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _remove_unused(path: Path) -> bool:
    """Remove the file unless somebody holds it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True


def _reserve(handle: int, size: int) -> None:
    """A full disk is found now and not after a long download."""
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
        os.ftruncate(handle, size)

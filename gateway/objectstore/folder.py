"""Objects as plain files below one root folder: blocking calls and the errors they mean. `LocalStore` is its only caller.

`.tmp` in the root holds unfinished files and locks and is no part of the objects. Digests are the etags: a file's times and
inode are reused too quickly to tell two versions apart.
"""

import contextlib
import errno
import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.errors import (
    BucketNotFound,
    GatewayError,
    ObjectNotFound,
    PreconditionFailed,
    StoreFull,
    StoreReadOnly,
    StoreRefused,
    StoreUnavailable,
)
from gateway.objectstore import durable, keys
from gateway.objectstore.protocol import ObjectInfo, StoredObject

STAGING = ".tmp"
LOCKS = 256  # keys share this many lock files, so that their number has an end


class Folder:
    """Blocking calls, safe from any thread; several processes may share the root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / STAGING
        self._is_swept = False

    def get(self, key: str) -> StoredObject:
        with self.open(key) as file, self._reading(key):
            body = file.read()
        return StoredObject(body=body, etag=_etag(body))

    def get_range(self, key: str, start: int, stop: int, etag: str | None) -> bytes:
        with self.open(key) as file, self._reading(key):
            if etag is not None and hashlib.file_digest(file, "sha256").hexdigest() != etag:
                raise PreconditionFailed(f"object {key!r} in {self._root} has changed")
            file.seek(start)
            return file.read(stop - start)

    def head(self, key: str) -> ObjectInfo:
        with self.open(key) as file:
            status = os.fstat(file.fileno())
            return ObjectInfo(key=key, size=status.st_size, modified_ns=status.st_mtime_ns)

    def open(self, key: str) -> io.BufferedReader:
        """The version of this moment: it stays readable, and the same, when the object is replaced or removed."""
        path = self._path(key)
        with self._reading(key):
            return path.open("rb")

    def read(self, key: str, file: BinaryIO, count: int) -> bytes:
        with self._reading(key):
            return file.read(count)

    @contextlib.contextmanager
    def staged(self, key: str) -> Iterator[BinaryIO]:
        """A file to `write` and then `create` under this key; gone at the end if it was not created."""
        path = self._path(key)
        with contextlib.ExitStack() as unfinished:
            with self._writing(key):
                if path.exists():
                    raise FileExistsError(errno.EEXIST, "exists", str(path))
                file = unfinished.enter_context(durable.staged(self._prepared()))
            yield file

    def write(self, key: str, file: BinaryIO, block: bytes) -> None:
        with self._writing(key):
            file.write(block)

    def create(self, key: str, file: BinaryIO) -> None:
        with self._writing(key):
            durable.create(file, self._path(key), self._root)

    def put_if_absent(self, key: str, body: bytes) -> str:
        with self.staged(key) as file:
            self.write(key, file, body)
            self.create(key, file)
        return _etag(body)

    def put_if_match(self, key: str, body: bytes, etag: str) -> str:
        path = self._path(key)
        with self._writing(key), durable.locked(self._lock(key)):
            if not path.is_file() or _etag(path.read_bytes()) != etag:
                raise PreconditionFailed(f"object {key!r} in {self._root} has changed or is gone; read it again")
            with durable.staged(self._prepared()) as file:
                file.write(body)
                durable.replace(file, path)
        return _etag(body)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._writing(key), durable.locked(self._lock(key)):
            if path.is_file():
                durable.remove(path)

    def children(self, parent: str, prefix: str, start_after: str) -> list[ObjectInfo]:
        """What lies directly in the folder `parent` (ends with `/`, or is empty for the root), in key order.

        A subfolder is a row whose key ends with `/`; that is also how it sorts, since its objects' keys begin so. Rows that
        cannot hold a key under `prefix` after `start_after` are left out. Code points sort as their UTF-8 bytes do.
        """
        rows = []
        with self._reading(parent):
            for entry in self._entries(parent):
                is_folder = entry.is_dir(follow_symlinks=False)
                row = f"{parent}{entry.name}/" if is_folder else f"{parent}{entry.name}"
                if not _may_follow(row, prefix, start_after) or row == f"{STAGING}/":
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                    if is_folder:
                        rows.append(ObjectInfo(key=row, size=0))
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        rows.append(ObjectInfo(key=row, size=status.st_size, modified_ns=status.st_mtime_ns))
        return sorted(rows, key=lambda row: row.key)

    def subfolders(self, prefix: str) -> list[str]:
        """The folders directly in `prefix` (ends with `/`), with their own `/`, in order; empty ones too."""
        if prefix:
            self._path(prefix.removesuffix("/"))
        return [row.key for row in self.children(prefix, prefix, "") if row.key.endswith("/")]

    def _entries(self, parent: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._root / parent) as entries:
                return list(entries)
        except FileNotFoundError:
            if not parent or not self._root.is_dir():
                raise
            return []  # removed since its own parent was read

    def _path(self, key: str) -> Path:
        if keys.checked(key).startswith(f"{STAGING}/") or key == STAGING:
            raise ValueError(f"key {key!r} is in the folder of unfinished files")
        return self._root / key

    def _prepared(self) -> Path:
        """The staging folder, rid of what killed writers left in it. Its parent is not made: the root must exist."""
        self._staging.mkdir(exist_ok=True)
        if not self._is_swept:
            self._is_swept = True
            durable.sweep(self._staging, now_s=time.time())
        return self._staging

    def _lock(self, key: str) -> Path:
        locks = self._prepared() / "locks"
        locks.mkdir(exist_ok=True)
        return locks / f"{int(_etag(key.encode()), 16) % LOCKS:03d}"

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self._missing() or ObjectNotFound(f"no object {key!r} in {self._root}") from error
        except PermissionError as error:
            raise StoreRefused(f"cannot read {key!r} in {self._root}: {error.strerror}") from error
        except OSError as error:
            raise StoreUnavailable(f"cannot read {key!r} in {self._root}: {error.strerror}") from error

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            reason = "it exists, or the name of a folder above it is an object's"
            raise self._missing() or PreconditionFailed(
                f"cannot create object {key!r} in {self._root}: {reason}"
            ) from error
        except OSError as error:
            raise self._missing() or _write_failure(key, self._root, error) from error

    def _missing(self) -> BucketNotFound | None:
        """The error to raise instead when the root itself is the reason."""
        if self._root.is_dir():
            return None
        return BucketNotFound(f"no folder {self._root}; create it, or correct the store's URL")


def _write_failure(key: str, root: Path, error: OSError) -> GatewayError:
    message = f"cannot write {key!r} in {root}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(message)
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StoreReadOnly(message)
    return StoreUnavailable(message)


def _may_follow(row: str, prefix: str, start_after: str) -> bool:
    """Whether a file's key, or any key in a folder, starts with `prefix` and comes after `start_after`."""
    if not row.endswith("/"):
        return row.startswith(prefix) and row > start_after
    return (row.startswith(prefix) or prefix.startswith(row)) and (row > start_after or start_after.startswith(row))


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()

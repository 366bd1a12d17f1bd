"""What is read of a local copy, and how one that cannot be read is named: by its key in the store, with what to do.

`gateway.reports.copies` makes the copies.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.contract import codec, layout
from gateway.errors import ManifestInvalid, WrittenByNewer

T = TypeVar("T", bound=msgspec.Struct)

_PREFIXES = (f"/{layout.LEDGER}", f"/{layout.COMPACTED}")


def key_of(path: Path) -> str:
    """The key in the store of this copy."""
    for prefix in _PREFIXES:
        _, found, after = str(path).rpartition(prefix)
        if found:
            return f"{prefix[1:]}{after}"
    return str(path)


def damaged(kind: str, path: Path, error: object) -> ManifestInvalid:
    """To raise. Either the copy was damaged here, or the object is: only reading it from the store tells."""
    return ManifestInvalid(
        f"{kind} {key_of(path)} is damaged ({error}): delete its copy {path} and run again; if that says the same, the object "
        "in the store is damaged, and `steelyard ledger verify` names all that are"
    )


def record(path: Path, kind: type[T], what: str) -> T:
    """Blocking. Raises `ManifestInvalid` as `damaged`, `WrittenByNewer`."""
    return decoded(path, path.read_bytes(), kind, what)


def decoded(path: Path, data: bytes, kind: type[T], what: str) -> T:
    """As `record`, of bytes that were read of the copy."""
    try:
        return codec.decode(data, kind, what=f"{what} {key_of(path)}")
    except WrittenByNewer:
        raise
    except ManifestInvalid as error:
        raise damaged(what, path, error.__cause__ or error) from error

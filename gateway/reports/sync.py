"""Brings the ledger's objects from the store into a local folder, where DuckDB reads them.

Ledger objects never change, so one whose copy has the listed size is not fetched again. What is listed is what is reported: a file
that only the folder has is ignored. Several reports may share a folder: a file appears in it whole or not at all.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gateway.contract import codec, layout
from gateway.objectstore.protocol import ObjectInfo, ObjectStore

FETCHES = 8  # enough to hide S3's first-byte latency (tens of ms); at most that many segments are in memory

_CONTAINER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_SEGMENT = re.compile(rf"{layout.LEDGER}dt=\d{{4}}-\d\d-\d\d/hr=\d\d/{_CONTAINER}/\d+-\d{{12}}\.jsonl\.gz")
_OPEN = re.compile(rf"{layout.LEDGER}containers/{_CONTAINER}/\d+-open\.json")
_TRAINING = re.compile(rf"{layout.TRAINING}[a-z0-9][a-z0-9._-]{{0,62}}/\d{{4}}\.json")
_CLOSE = re.compile(rf"{layout.LEDGER}containers/{_CONTAINER}/\d+-close\.json")


class LocalLedger(msgspec.Struct, frozen=True):
    """Local copies of all that the store listed. `foreign` are keys under the ledger's prefix that this version cannot read."""

    segments: tuple[Path, ...]
    opens: tuple[Path, ...]
    closes: tuple[Path, ...]
    training: tuple[Path, ...] = ()
    foreign: tuple[str, ...] = ()


def default_folder(url: str, environ: Mapping[str, str]) -> Path:
    """A cache folder of this store's own, below $XDG_CACHE_HOME or ~/.cache."""
    caches = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "steelyard" / "ledger" / codec.sha256(url.encode())[:16]


async def sync(store: ObjectStore, folder: Path) -> LocalLedger:
    """Copy what is new into `folder`, making it where missing. Raises `StoreUnavailable`."""
    listed = [info async for info in store.list(layout.LEDGER)]
    known = [info for info in listed if _is_known(info.key)]
    missing = iter([info for info in known if not _has(folder, info)])
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(FETCHES):
                group.create_task(_fetch(store, folder, missing))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return LocalLedger(
        segments=_paths(folder, known, _SEGMENT),
        opens=_paths(folder, known, _OPEN),
        closes=_paths(folder, known, _CLOSE),
        training=_paths(folder, known, _TRAINING),
        foreign=tuple(info.key for info in listed if not _is_known(info.key)),
    )


def _is_known(key: str) -> bool:
    return any(pattern.fullmatch(key) for pattern in (_SEGMENT, _OPEN, _CLOSE, _TRAINING))


def _has(folder: Path, info: ObjectInfo) -> bool:
    try:
        return (folder / info.key).stat().st_size == info.size
    except FileNotFoundError:
        return False


async def _fetch(store: ObjectStore, folder: Path, missing: Iterator[ObjectInfo]) -> None:
    """One of several that share the iterator."""
    for info in missing:
        stored = await store.get(info.key)
        await asyncio.to_thread(_write, folder / info.key, stored.body)


def _write(path: Path, body: bytes) -> None:
    """Not synced to disk: after a crash the size is wrong and the object is fetched again, or DuckDB refuses the file by name."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)  # a ledger names tenants and request ids
            file.write(body)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _paths(folder: Path, known: list[ObjectInfo], pattern: re.Pattern[str]) -> tuple[Path, ...]:
    return tuple(folder / info.key for info in known if pattern.fullmatch(info.key))

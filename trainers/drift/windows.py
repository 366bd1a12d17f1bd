"""The rows that gateways counted, read from the store and added up by window of time.

A gateway's own window belongs to the window of time that it begins in. Only what was counted with this very profile is added:
counts in other bins mean something else.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.contract import codec, layout
from gateway.contract.features import FeatureProfile, FeatureWindow
from gateway.contract.manifest import Manifest
from gateway.errors import DigestMismatch, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry
from trainers.errors import DataError

Counts = NDArray[np.float64]

READS_AT_ONCE = 16
"""Half of the connections that the S3 store keeps. A week of ten containers that serve around the clock is 20,000 objects."""


class Profiled(msgspec.Struct, frozen=True):
    """A version and what its columns looked like in training."""

    model: str
    version: int
    manifest: Manifest
    profile: FeatureProfile
    sha256: str


class Window(msgspec.Struct, frozen=True):
    """All containers' counts from `from_ns` to `to_ns` (Unix time), by column of the profile."""

    from_ns: int
    to_ns: int
    rows_seen: int
    rows: int
    counts: tuple[Counts, ...]
    missing: tuple[int, ...]


async def profiled(store: ObjectStore, model: str, version: str = layout.CHAMPION) -> Profiled:
    """A version by number or alias. Raises `ModelNotFound`, an `ArtifactError`, or `DataError` when it has no profile."""
    registry = Registry(store)
    number, digest = await registry.resolve(model, version)
    manifest = await registry.manifest(model, digest)
    file = next((file for file in manifest.files if file.role == "profile"), None)
    if file is None:
        raise DataError(f"{model}@{number} was published without a profile of its columns; train and publish it again")
    try:
        body = (await store.get(layout.blob(model, file.sha256))).body
    except ObjectNotFound as error:
        raise DigestMismatch(f"'{file.name}' of {model}@{number} is missing from the store") from error
    if codec.sha256(body) != file.sha256:
        raise DigestMismatch(f"'{file.name}' of {model}@{number} does not have the digest in its manifest")
    return Profiled(model, number, manifest, codec.decode(body, FeatureProfile, what=f"'{file.name}'"), file.sha256)


async def read(store: ObjectStore, of: Profiled, *, until_ns: int, window_ns: int, count: int) -> list[Window]:
    """The last `count` windows of `window_ns` before `until_ns`, oldest first; those that nobody was counted in are empty."""
    since_ns = until_ns - window_ns * count
    sums = [_Sum(of.profile) for _ in range(count)]
    async for logged in _logged(store, of, since_ns, until_ns):
        sums[(logged.from_ns - since_ns) // window_ns].add(logged)
    return [each.window(since_ns + at * window_ns, window_ns) for at, each in enumerate(sums)]


class _Sum:
    def __init__(self, profile: FeatureProfile) -> None:
        self._counts = [np.zeros(len(column.counts)) for column in profile.columns]
        self._missing = [0] * len(profile.columns)
        self._rows_seen = self._rows = 0

    def add(self, logged: FeatureWindow) -> None:
        self._rows_seen += logged.rows_seen
        self._rows += logged.rows_sampled
        for at, column in enumerate(logged.columns):
            self._counts[at] += column.counts
            self._missing[at] += column.missing

    def window(self, from_ns: int, length_ns: int) -> Window:
        return Window(
            from_ns, from_ns + length_ns, self._rows_seen, self._rows, tuple(self._counts), tuple(self._missing)
        )


async def _logged(store: ObjectStore, of: Profiled, since_ns: int, until_ns: int) -> AsyncIterator[FeatureWindow]:
    keys = [key async for key in _keys(store, of.model, since_ns, until_ns)]
    for start in range(0, len(keys), READS_AT_ONCE):
        for body in await asyncio.gather(*(store.get(key) for key in keys[start : start + READS_AT_ONCE])):
            logged = codec.decode(body.body, FeatureWindow, what="a window of counted rows")
            is_ours = (logged.version, logged.profile_sha256) == (of.version, of.sha256)
            if is_ours and since_ns <= logged.from_ns < until_ns:
                yield logged


async def _keys(store: ObjectStore, model: str, since_ns: int, until_ns: int) -> AsyncIterator[str]:
    """Of the days that the period touches."""
    day, last = (_date(moment) for moment in (since_ns, until_ns - 1))
    while day <= last:
        async for info in store.list(layout.feature_windows(model, f"{day:%Y-%m-%d}")):
            yield info.key
        day += timedelta(days=1)


def _date(moment_ns: int) -> datetime:
    return datetime.fromtimestamp(moment_ns // 10**9, UTC).replace(hour=0, minute=0, second=0)

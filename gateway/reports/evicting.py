"""Deletes local copies of segments that have been compacted since: reports read their hour's sums in their place.

A gateway that keeps its ledger's copies for a year would else hold every segment twice. `gateway.reports.sync` calls this. Only
what a manifest lists is touched, and nothing of the store.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from gateway.contract import layout
from gateway.reports import hours
from gateway.reports.hours import Hour

EVICTED_MAX = 5000  # files of one sync: a fraction of a second; the next goes on
GRACE_NS = 3600 * 10**9
"""Since the manifest was copied here: a report of another process that listed before reads the segments, and ends in minutes."""


def evict(folder: Path, compacted: Mapping[Hour, list[Path]], now_ns: int) -> int:
    """How many were deleted, the oldest hours first. Blocking. `compacted` are copies of manifests."""
    deleted = 0
    for hour, place in _held(folder):
        settled = [path for path in compacted.get(hour, []) if now_ns - path.stat().st_mtime_ns >= GRACE_NS]
        names = {str(path.relative_to(folder)) for path in place.rglob("*") if path.is_file()} if settled else set()
        for key in sorted(names & hours.inputs(settled))[: EVICTED_MAX - deleted] if names else []:
            (folder / key).unlink(missing_ok=True)  # another sync may be at it too
            deleted += 1
        if settled:
            _remove_empty(place)
    return deleted


def _held(folder: Path) -> Iterator[tuple[Hour, Path]]:
    """Hours that have a folder of segments here."""
    root = folder / PurePosixPath(layout.LEDGER)
    for place in sorted(root.glob("dt=*/hr=*")):
        yield (place.parent.name.removeprefix("dt="), place.name.removeprefix("hr=")), place


def _remove_empty(place: Path) -> None:
    """The hour's folder, its containers' and its day's, as far as nothing is in them."""
    for folder in [*place.glob("*"), place, place.parent]:
        with contextlib.suppress(OSError):
            folder.rmdir()

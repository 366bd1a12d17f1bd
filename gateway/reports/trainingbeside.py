"""Training beside a report's bill: what the period is to bear of each version, where one asks, and all attempts that began in it.

Reads the registry and the ledger's records of attempts; `breakdown` calls it. Energy only where there are coefficients.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.contract.energy import NOTHING, Coefficients, Footprint
from gateway.contract.words import END_NS
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import amortizing, training, trainingpower
from gateway.reports.amortizing import Amortized, Answered
from gateway.reports.query import Query
from gateway.reports.trainingpower import Begun

Serving = Mapping[tuple[str, int], tuple[Footprint, int]]
"""Per model and version: what serving took in the period, and the predictions it answered, whatever the filters."""


class Source(msgspec.Struct, frozen=True):
    """`records` are copies of the ledger's, one for each attempt. Nobody asked for energy where there are no coefficients."""

    store: ObjectStore
    records: tuple[Path, ...]
    answered: Answered
    coefficients: Coefficients | None


async def read(
    source: Source, query: Query, end_ns: int, serving: Serving
) -> tuple[tuple[Amortized, ...], Begun | None]:
    """`end_ns` is the report's last moment; `serving` is empty where no portions are asked for. Raises `StoreUnavailable`."""
    since_ns, rows = query.since_ns or 0, tuple[Amortized, ...]()
    if query.amortize is not None:
        until_ns = end_ns if query.until_ns is None else query.until_ns
        rows = await amortizing.amortized(
            source.store, query.amortize, source.answered, since_ns, until_ns, source.coefficients
        )
    if source.coefficients is None:
        return rows, None
    until_ns = END_NS if query.until_ns is None else query.until_ns
    found = await asyncio.to_thread(training.attempts, source.records, since_ns, until_ns, query.model)
    return tuple(_scored(row, serving) for row in rows), trainingpower.begun(found, source.coefficients)


def _scored(row: Amortized, serving: Serving) -> Amortized:
    if row.energy is None:
        return row
    took, answered = serving.get((row.model, row.version), (NOTHING, 0))
    return msgspec.structs.replace(row, energy=trainingpower.with_sci(row.energy, took, answered))

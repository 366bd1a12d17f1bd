"""Posted corrections as rows of the ledger: account `correction`, like a segment of no length, and a table that says why.

`tables` adds both. A posting that does not balance is refused here, not reported: `steelyard ledger verify` names what is wrong.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any  # Any: a row is a struct's fields, on the way to SQL

import msgspec

from gateway.contract import codec
from gateway.contract.corrections import ACCOUNT, Correction, Entry, Posted, problems
from gateway.errors import ManifestInvalid

NO_SEGMENT = -2
"""The `seq` of these lines; below that of what nobody claims, and of no chain."""

Row = dict[str, Any]

COLUMNS: Mapping[str, str] = {
    "id": "VARCHAR",
    "generation": "HUGEINT",
    "bill_sha256": "VARCHAR",
    "bill": "VARCHAR",
    "posted_ns": "HUGEINT",
    "reason": "VARCHAR",
    "resource": "VARCHAR",
    "container": "VARCHAR",
    "service": "VARCHAR",
    "hour_ns": "HUGEINT",
    "sku": "VARCHAR",
    "model": "VARCHAR",
    "version": "HUGEINT",
    "tenant": "VARCHAR",
    "outcome": "VARCHAR",
    "cost_picousd": "HUGEINT",
}
"""The table `corrections`: one row per entry."""


def read(paths: Iterable[Path]) -> tuple[Posted, ...]:
    """In the order of their generations. Blocking. Raises `ManifestInvalid` naming the file that is damaged or does not balance."""
    found = tuple(parsed(str(path), path.read_bytes()) for path in paths)
    return tuple(sorted(found, key=lambda posted: posted.generation))


def parsed(name: str, data: bytes) -> Posted:
    """Raises `ManifestInvalid`."""
    posted = codec.decode(data, Posted, what=f"correction record {name}")
    if wrong := problems(posted):
        raise ManifestInvalid(f"correction record {name} is not whole: {wrong[0]}; run `steelyard ledger verify`")
    return posted


def lines(postings: Sequence[Posted]) -> Iterator[Row]:
    """Per correction, hour and sku what a segment's header, charge and postings would be."""
    for posted in postings:
        for line in posted.corrections:
            hours: dict[int, list[Entry]] = defaultdict(list)
            for entry in line.entries:
                hours[entry.hour_ns].append(entry)
            for hour_ns, entries in sorted(hours.items()):
                yield from _lines(line, hour_ns, entries)


def _lines(line: Correction, hour_ns: int, entries: Sequence[Entry]) -> Iterator[Row]:
    filename = f"correction:{line.id}/{hour_ns}"
    costs: dict[str, int] = defaultdict(int)
    for entry in entries:
        costs[entry.sku] += entry.cost_picousd
    header = {
        "container": line.container or line.resource,
        "boot_ns": 0,
        "seq": NO_SEGMENT,
        "from_ns": hour_ns,
        "to_ns": hour_ns,
        "cost_picousd": sum(costs.values()),
        "requests": 0,
        "collapsed": 0,
    }
    empty = {"sha256": "", "previous_sha256": "", "price_book_sha256": ""}
    yield {"type": "segment", "filename": filename, **header, **empty}
    for sku, cost in costs.items():
        yield {"type": "charge", "filename": filename, "sku": sku, "quantity": 0, "cost_picousd": cost, "beyond": 0}
    for entry in entries:
        fields = msgspec.structs.asdict(entry)
        del fields["hour_ns"]
        counts = {"quantity": 0, "requests": 0, "rows": 0}
        yield {"type": "posting", "filename": filename, "account": ACCOUNT, **counts, **fields}


def rows(postings: Sequence[Posted]) -> Iterator[Row]:
    """Of the table `corrections`."""
    for posted in postings:
        why = {
            "generation": posted.generation,
            "bill_sha256": posted.bill_sha256,
            "bill": posted.bill_name,
            "posted_ns": posted.posted_ns,
        }
        for line in posted.corrections:
            whose = {name: getattr(line, name) for name in ("id", "reason", "resource", "container", "service")}
            for entry in line.entries:
                yield {**why, **whose, **msgspec.structs.asdict(entry)}

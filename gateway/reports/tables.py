"""The ledger as SQL: `segments`, `charges`, `postings`, `requests`, `opens`, `closes`, `ended` and `corrections`, in DuckDB.

`segments`, `charges` and `postings` hold what no segment claims too, as account `unattributed`, and what was corrected, as account
`correction`; `chain` are the real segments.
Of compacted hours a row of `segments` may be a stretch of several (`gateway.reports.hoursums`); `segments` and `last_seq` say so.
All but `requests` are checked against the contract and kept: they are few, and money is only ever summed from postings and
charges. `requests` is a view that reads the files when asked. Every integer is a HUGEINT: memory times nanoseconds passes
2**63 within seconds.
"""

import glob
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any  # Any: a row is a contract struct's fields, on the way to SQL

import duckdb
import msgspec

from gateway.contract import ledger, ledgerkeys
from gateway.contract.ledgerkeys import LedgerKey
from gateway.contract.words import END_NS, HOUR_NS
from gateway.errors import ManifestInvalid
from gateway.reports import copied, corrections, heads, hourlines, unattributed
from gateway.reports.hourlines import Life, Span
from gateway.reports.sync import LocalLedger


class Limits(msgspec.Struct, frozen=True):
    """What DuckDB may use: memory, beyond which it spills to a temporary folder, and threads (0: one per core)."""

    memory: str = "1GB"  # what a laptop or a small report job spares
    threads: int = 0


_limits = Limits()


def limit(limits: Limits) -> None:
    """Hold this whole process to it: for one that makes reports beside something that matters more."""
    global _limits  # noqa: PLW0603 - as a resource limit of the system: set once, before anything is opened
    _limits = limits


_VIEWS = """
CREATE VIEW segments AS
SELECT filename, sha256, container, boot_ns, seq, previous_sha256, from_ns, to_ns, price_book_sha256, cost_picousd,
       requests, collapsed, coalesce(last_seq, seq) AS last_seq, coalesce(segments, 1) AS segments
FROM lines WHERE type = 'segment';

CREATE VIEW chain AS SELECT * FROM segments WHERE seq >= 0;

CREATE VIEW charges AS
SELECT filename, sku, unit, quantity, cost_picousd, coalesce(beyond, 0) AS beyond, coalesce(since, 0) AS since
FROM lines WHERE type = 'charge';

CREATE VIEW postings AS
SELECT filename, account, sku, cost_picousd, quantity, model, version, tenant, outcome, requests, rows, phases,
       coalesce(entries, 1) AS entries
FROM lines WHERE type = 'posting';

CREATE VIEW requests AS
SELECT filename, id, at_ns, model, version, outcome, rows, cpu_ns, cost_picousd,
       coalesce(request_bytes, 0) AS request_bytes, coalesce(response_bytes, 0) AS response_bytes,
       coalesce(queue_ns, 0) AS queue_ns, coalesce(run_ns, 0) AS run_ns, coalesce(batch_rows, 0) AS batch_rows,
       coalesce(variant, '') AS variant, coalesce(tenant, '') AS tenant, coalesce(door, '') AS door
FROM stored_requests WHERE type = 'request'
UNION ALL BY NAME FROM compacted_requests;
"""

Row = dict[str, Any]
Columns = dict[str, str]

_encoder = msgspec.json.Encoder()
_UNREAD = {"key": "VARCHAR", "container": "VARCHAR", "boot_ns": "HUGEINT", "hour_ns": "HUGEINT"}


@contextmanager
def opened(
    local: LocalLedger, since_ns: int | None = None, until_ns: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the ledger's tables; blocking. An empty ledger has them too, with no rows.

    Raises `ManifestInvalid` naming a file that is damaged or newer than this release. A segment that is one of these and of an hour
    out of [since_ns, until_ns) is no reason not to report the period: it is a row of `unread`, and nowhere else.
    """
    unread: dict[Path, LedgerKey] = {}
    asked = (since_ns or 0, END_NS if until_ns is None else until_ns)
    with tempfile.TemporaryDirectory(prefix="steelyard-report-") as scratch, _connect(scratch) as connection:
        lines = _columns(ledger.Segment) | _columns(ledger.Charge) | _columns(ledger.Posting)
        lines |= {"type": "VARCHAR", "filename": "VARCHAR", "sha256": "VARCHAR"}
        lines |= {"last_seq": "HUGEINT", "segments": "HUGEINT", "entries": "HUGEINT"}
        _table(connection, "lines", [], lines, Path(scratch))
        hourlines.insert(connection, local.hours)
        corrected = corrections.read(local.corrections)
        read = _heads(local.segments, asked, unread)
        live = itertools.chain(_lines(local, read, *hourlines.spans(connection)), corrections.lines(corrected))
        _table(connection, "live_lines", live, lines, Path(scratch))
        connection.execute("INSERT INTO lines BY NAME FROM live_lines; DROP TABLE live_lines")
        _table(connection, "corrections", corrections.rows(corrected), corrections.COLUMNS, Path(scratch))
        _table(connection, "opens", _records(local.opens, ledger.Open), _columns(ledger.Open), Path(scratch))
        _table(connection, "closes", _records(local.closes, ledger.Close), _columns(ledger.Close), Path(scratch))
        _table(connection, "ended", _records(local.ended, ledger.Ended), _columns(ledger.Ended), Path(scratch))
        books = ({"sha256": path.name} for path in local.books)
        _table(connection, "books", books, {"sha256": "VARCHAR"}, Path(scratch))
        _table(connection, "unread", _unread_rows(unread), _UNREAD, Path(scratch))
        _stored_requests(connection, [path for path in local.segments if path not in unread], Path(scratch))
        hourlines.requests(connection, local.hours)
        connection.execute(_VIEWS)
        yield connection


def _connect(scratch: str) -> duckdb.DuckDBPyConnection:
    """JSON support is part of the wheel; whatever is not must not be fetched from the internet behind the operator's back."""
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": _limits.memory,
            **({"threads": str(_limits.threads)} if _limits.threads else {}),
            "temp_directory": scratch,
        }
    )


def _heads(
    paths: Iterable[Path], asked: tuple[int, int], unread: dict[Path, LedgerKey]
) -> Iterator[tuple[Path, heads.Head]]:
    """Those that cannot be read and were not asked for go into `unread` instead."""
    for path in paths:
        try:
            yield path, heads.read(path)
        except ManifestInvalid:
            named = ledgerkeys.parse(copied.key_of(path))
            if named is None or (named.hour_ns < asked[1] and named.hour_ns + HOUR_NS > asked[0]):
                raise
            unread[path] = named


def _unread_rows(unread: Mapping[Path, LedgerKey]) -> Iterator[Row]:
    for path, named in unread.items():
        where = {"container": named.container, "boot_ns": named.boot_ns, "hour_ns": named.hour_ns}
        yield {"key": copied.key_of(path), **where}


def _lines(
    local: LocalLedger, read: Iterable[tuple[Path, heads.Head]], spans: dict[Life, list[Span]], over: set[Life]
) -> Iterator[Row]:
    """Of all segments, then of what none of them claims; `spans` and `over` are what compacted hours claim."""
    for path, head in read:
        if any(isinstance(line, ledger.Charge) and line.beyond for line in head.money):
            over.add((head.segment.container, head.segment.boot_ns))  # only an end bills beyond itself
        held = spans.setdefault((head.segment.container, head.segment.boot_ns), [])
        held.append((head.segment.from_ns, head.segment.to_ns))
        yield from _rows(str(path), head.sha256, head.segment, head.money)
    for gap in unattributed.find(local, spans, over):
        yield from _rows(gap.name, "", gap.header, gap.money)


def _rows(
    filename: str, sha256: str, header: ledger.Segment, money: Sequence[ledger.Charge | ledger.Posting]
) -> Iterator[Row]:
    yield {"type": "segment", "filename": filename, "sha256": sha256, **msgspec.structs.asdict(header)}
    for line in money:
        kind = "charge" if isinstance(line, ledger.Charge) else "posting"
        yield {"type": kind, "filename": filename, **msgspec.structs.asdict(line)}


def _records(paths: Iterable[Path], kind: type[msgspec.Struct]) -> Iterator[Row]:
    for path in paths:
        record = msgspec.structs.asdict(copied.record(path, kind, "ledger record"))
        yield {name: value for name, value in record.items() if value is not msgspec.UNSET}


def _columns(kind: type[msgspec.Struct]) -> dict[str, str]:
    """SQL types of a record's fields; what is not a number stays text."""
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return {
        field.name: "HUGEINT" if isinstance(field.type, msgspec.inspect.IntType) else "VARCHAR"
        for field in described.fields
    }


def _table(
    connection: duckdb.DuckDBPyConnection, name: str, rows: Iterable[Row], columns: Mapping[str, str], scratch: Path
) -> None:
    """Through a file: DuckDB reads JSON lines a thousand times faster than it takes single rows."""
    path = scratch / f"{name}.jsonl"
    with path.open("wb") as file:
        for row in rows:
            file.write(_encoder.encode(row) + b"\n")
    relation = connection.read_json(
        glob.escape(str(path)), columns=dict(columns), format="newline_delimited", compression="none"
    )
    relation.create(name)
    path.unlink()


def _stored_requests(connection: duckdb.DuckDBPyConnection, segments: Sequence[Path], scratch: Path) -> None:
    """All lines of all segments, as far as requests have such fields. DuckDB refuses to read no files: then an empty table."""
    columns = {"type": "VARCHAR", **_columns(ledger.Request)}
    if not segments:
        _table(connection, "stored_requests", [], {**columns, "filename": "VARCHAR"}, scratch)
        return
    paths = [glob.escape(str(path)) for path in segments]  # DuckDB takes names for patterns
    connection.read_json(
        paths,  # type: ignore[arg-type] # its stub forgets lists
        columns=columns,
        format="newline_delimited",
        compression="gzip",
        filename=True,
    ).create_view("stored_requests")

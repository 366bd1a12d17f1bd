"""The ledger as SQL: `segments`, `charges`, `postings`, `requests`, `digests`, `opens` and `closes` in an in-memory DuckDB.

All but `requests` are read once and kept: they are few, and money is only ever summed from postings and charges. `requests` is a
view that reads the files when asked. Every integer is a HUGEINT: memory times nanoseconds passes 2**63 within seconds.
"""

import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import msgspec

from gateway.contract import codec, ledger
from gateway.errors import ManifestInvalid
from gateway.reports.sync import LocalLedger

MEMORY_MAX = "1GB"  # what a laptop or a small report job spares; more spills to a temporary folder

_TABLES = """
CREATE TABLE lines AS SELECT * FROM stored_lines WHERE type <> 'request';

CREATE VIEW segments AS
SELECT filename, container, boot_ns, seq, previous_sha256, from_ns, to_ns, price_book_sha256, cost_picousd, requests,
       coalesce(collapsed, 0) AS collapsed, schema_version
FROM lines WHERE type = 'segment';

CREATE VIEW charges AS
SELECT filename, sku, unit, quantity, cost_picousd
FROM lines WHERE type = 'charge';

CREATE VIEW postings AS
SELECT filename, account, sku, cost_picousd, quantity, coalesce(model, '') AS model, coalesce(version, 0) AS version,
       coalesce(tenant, '') AS tenant, coalesce(outcome, '') AS outcome,
       coalesce(requests, 0) AS requests, coalesce(rows, 0) AS rows
FROM lines WHERE type = 'posting';

CREATE VIEW requests AS
SELECT filename, id, at_ns, model, version, outcome, rows, cpu_ns, cost_picousd,
       coalesce(request_bytes, 0) AS request_bytes, coalesce(response_bytes, 0) AS response_bytes,
       coalesce(queue_ns, 0) AS queue_ns, coalesce(run_ns, 0) AS run_ns, coalesce(batch_rows, 0) AS batch_rows,
       coalesce(variant, '') AS variant, coalesce(tenant, '') AS tenant, coalesce(door, '') AS door
FROM stored_lines WHERE type = 'request';

CREATE TABLE opens AS SELECT * FROM stored_opens;
CREATE TABLE closes AS SELECT * FROM stored_closes;
CREATE TABLE digests (filename VARCHAR, sha256 VARCHAR);
"""


@contextmanager
def opened(local: LocalLedger) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the ledger's tables; blocking. An empty ledger has them too, with no rows.

    Raises `ManifestInvalid` naming a file that is damaged or newer than this release.
    """
    with tempfile.TemporaryDirectory(prefix="steelyard-report-") as spill, _connect(spill) as connection:
        try:
            _load(connection, local)
            yield connection
        except duckdb.IOException as error:
            raise ManifestInvalid(_unreadable(error)) from error
        except duckdb.InvalidInputException as error:
            raise ManifestInvalid(_unreadable(error)) from error


def _connect(spill: str) -> duckdb.DuckDBPyConnection:
    """JSON support is part of the wheel; whatever is not must not be fetched from the internet behind the operator's back."""
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": MEMORY_MAX,
            "temp_directory": spill,
        }
    )


def _load(connection: duckdb.DuckDBPyConnection, local: LocalLedger) -> None:
    lines = _columns(ledger.Segment) | _columns(ledger.Charge) | _columns(ledger.Posting) | _columns(ledger.Request)
    _view(connection, "stored_lines", local.segments, {"type": "VARCHAR", **lines}, compression="gzip")
    _view(connection, "stored_opens", local.opens, _columns(ledger.Open), compression="none")
    _view(connection, "stored_closes", local.closes, _columns(ledger.Close), compression="none")
    connection.execute(_TABLES)
    _refuse_unknown(connection, local)
    if local.segments:
        connection.execute(
            "INSERT INTO digests SELECT filename, sha256(content) FROM read_blob(getvariable('stored_lines'))"
        )


def _columns(kind: type[msgspec.Struct]) -> dict[str, str]:
    """SQL types of a record's fields; what is not a number stays text."""
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return {
        field.name: "HUGEINT" if isinstance(field.type, msgspec.inspect.IntType) else "VARCHAR"
        for field in described.fields
    }


def _view(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    paths: Sequence[Path],
    columns: Mapping[str, str],
    *,
    compression: Literal["gzip", "none"],
) -> None:
    """The JSON lines of these files as they are. DuckDB refuses to read no files: then the view has the columns and no rows."""
    if not paths:
        nulls = ", ".join(f"NULL::{kind} AS {column}" for column, kind in {**columns, "filename": "VARCHAR"}.items())
        connection.execute(f"CREATE VIEW {name} AS SELECT {nulls} LIMIT 0")
        return
    # A view takes no parameters but may read a variable; file names are patterns, hence the escape.
    connection.execute(f"SET VARIABLE {name} = $paths", {"paths": [glob.escape(str(path)) for path in paths]})
    types = ", ".join(f"{column}: '{kind}'" for column, kind in columns.items())
    connection.execute(
        f"CREATE VIEW {name} AS SELECT * FROM read_json(getvariable('{name}'), "  # noqa: S608 - our own names, no input
        f"format = 'newline_delimited', compression = '{compression}', filename = true, columns = {{{types}}})"
    )


def _refuse_unknown(connection: duckdb.DuckDBPyConnection, local: LocalLedger) -> None:
    """Without its header a segment would drop out of every sum unnoticed."""
    versions = dict(connection.execute("SELECT filename, schema_version FROM segments").fetchall())
    for path in local.segments:
        if str(path) not in versions:
            raise ManifestInvalid(f"ledger segment {path} has no header; delete this copy and run again")
    known = codec.schema_version(ledger.Segment)
    for name, written in versions.items():
        if written > known:
            raise ManifestInvalid(
                f"ledger segment {name} has schema_version {written}; this Steelyard reads up to {known}: upgrade it first"
            )


def _unreadable(error: duckdb.Error) -> str:
    """DuckDB's first line names the file; the rest is advice about options of ours."""
    reason = str(error).splitlines()[0]
    return f"a ledger file cannot be read ({reason}); delete this copy and run again: if it stays, the stored object is damaged"

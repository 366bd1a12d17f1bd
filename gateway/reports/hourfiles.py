"""One hour's segments as Parquet, the same bytes for the same segments. Blocking; compaction calls it in a thread.

DuckDB writes no time and no random name into a file; with one thread, a total order of rows and fixed row groups, rows decide the
bytes (and DuckDB's version, which a file names). Whole numbers are BIGINT, quantities DECIMAL(38,0): memory times nanoseconds
passes 2**63, and a HUGEINT would be written as a float. Every field of the contract's lines has a column.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec

from gateway.contract.compacted import TABLES, Table
from gateway.contract.ledger import Phases
from gateway.reports import hoursums, tables
from gateway.reports.sync import LocalLedger

ROWS_PER_GROUP = 122_880
"""DuckDB's own default, stated because it decides the bytes; some 4 MB of requests."""

_LIFE = "s.container::VARCHAR AS container, s.boot_ns::BIGINT AS boot_ns, s.seq::BIGINT AS seq"

_PHASES = [field.name for field in msgspec.structs.fields(Phases)]
_SHAPE = "{" + ", ".join(f'"{name}": "BIGINT"' for name in _PHASES) + "}"
_PACKED = ", ".join(f"{name} := coalesce(p.read.{name}, 0)" for name in _PHASES)
"""A phase that did not happen is not in the line."""

QUERIES: dict[Table, str] = {
    "segments": f"""
SELECT {_LIFE}, s.sha256::VARCHAR AS sha256, s.previous_sha256::VARCHAR AS previous_sha256, s.from_ns::BIGINT AS from_ns,
       s.to_ns::BIGINT AS to_ns, s.price_book_sha256::VARCHAR AS price_book_sha256, s.cost_picousd::BIGINT AS cost_picousd,
       s.requests::BIGINT AS requests, s.collapsed::BIGINT AS collapsed
FROM segments AS s
ORDER BY container, boot_ns, seq
""",
    "charges": f"""
SELECT {_LIFE}, c.sku::VARCHAR AS sku, c.unit::VARCHAR AS unit, c.quantity::DECIMAL(38, 0) AS quantity,
       c.cost_picousd::BIGINT AS cost_picousd, c.beyond::DECIMAL(38, 0) AS beyond,
       c.since::BIGINT AS since
FROM charges AS c JOIN segments AS s USING (filename)
ORDER BY container, boot_ns, seq, sku, c.quantity, c.cost_picousd, c.beyond, c.since
""",
    "postings": f"""
SELECT {_LIFE}, p.account::VARCHAR AS account, p.sku::VARCHAR AS sku, p.cost_picousd::BIGINT AS cost_picousd,
       p.quantity::DECIMAL(38, 0) AS quantity, p.model::VARCHAR AS model, p.version::BIGINT AS version,
       p.tenant::VARCHAR AS tenant, p.outcome::VARCHAR AS outcome, p.requests::BIGINT AS requests, p.rows::BIGINT AS "rows",
       CASE WHEN p.read IS NOT NULL THEN struct_pack({_PACKED}) END AS phases
FROM (SELECT *, from_json(phases, '{_SHAPE}') AS read FROM postings) AS p JOIN segments AS s USING (filename)
ORDER BY container, boot_ns, seq, account, sku, model, version, tenant, outcome, p.cost_picousd, p.quantity, phases
""",
    "requests": f"""
SELECT r.id::VARCHAR AS id, r.at_ns::BIGINT AS at_ns, {_LIFE}, r.model::VARCHAR AS model, r.version::BIGINT AS version,
       r.variant::VARCHAR AS variant, r.tenant::VARCHAR AS tenant, r.door::VARCHAR AS door, r.outcome::VARCHAR AS outcome,
       r.rows::BIGINT AS "rows", r.cpu_ns::BIGINT AS cpu_ns, r.cost_picousd::BIGINT AS cost_picousd,
       r.request_bytes::BIGINT AS request_bytes, r.response_bytes::BIGINT AS response_bytes, r.queue_ns::BIGINT AS queue_ns,
       r.run_ns::BIGINT AS run_ns, r.batch_rows::BIGINT AS batch_rows
FROM requests AS r JOIN segments AS s USING (filename)
ORDER BY model, version, at_ns, container, boot_ns, seq, id
""",
    "sums": hoursums.QUERY,
}
"""Requests of one model lie together in time order: a query for a model skips the other row groups."""


def write(segments: Sequence[Path], folder: Path) -> dict[Table, tuple[Path, int]]:
    """A file in `folder` for each table, with its rows; one without rows too. Raises `ManifestInvalid` for a damaged segment."""
    local = LocalLedger(segments=tuple(segments), opens=(), closes=())
    with tables.opened(local) as connection:
        return copy(connection, folder)


def copy(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[Table, tuple[Path, int]]:
    """What `write` makes, of a connection that has the hour's `segments`, `charges`, `postings` and `requests`."""
    connection.execute("SET threads = 1")
    return {table: (folder / f"{table}.parquet", _copy(connection, table, folder)) for table in TABLES}


def _copy(connection: duckdb.DuckDBPyConnection, table: Table, folder: Path) -> int:
    # A name of ours in a folder of ours; COPY takes no parameters.
    target = str(folder / f"{table}.parquet").replace("'", "''")
    # Version 1 is DuckDB's default too, and what every engine reads: the second one's encodings are not.
    options = f"FORMAT parquet, PARQUET_VERSION v1, COMPRESSION zstd, ROW_GROUP_SIZE {ROWS_PER_GROUP}"
    [(rows,)] = connection.execute(f"COPY ({QUERIES[table]}) TO '{target}' ({options})").fetchall()
    assert isinstance(rows, int)
    return rows


def same_rows(one: Path, other: Path) -> bool:
    """Whether two files hold the same rows: what another version of DuckDB wrote has other bytes."""
    return _are_same(f"FROM {_read(one)}", f"FROM {_read(other)}")


def same_rows_of(whole: Path, part: Path, segments: Path) -> bool:
    """Whether of the lives and numbers in the table `segments` the one file holds just the rows of the other."""
    named = f"FROM {_read(whole)} AS whole SEMI JOIN {_read(segments)} AS named USING (container, boot_ns, seq)"
    return _are_same(named, f"FROM {_read(part)}")


def _are_same(left: str, right: str) -> bool:
    query = f"SELECT count(*) FROM (({left} EXCEPT ALL {right}) UNION ALL ({right} EXCEPT ALL {left}))"
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall() == [(0,)]


def _read(path: Path) -> str:
    return f"read_parquet('{str(path).replace(chr(39), chr(39) * 2)}', hive_partitioning = false)"

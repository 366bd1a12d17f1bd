"""Reads the Parquet of one compacted hour for `steelyard ledger verify`: its segments with their charges, and sums that differ.

The audit fetches and compares; DuckDB's door is this room, hence the division. Nothing here trusts what compaction checked before.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb

from gateway.audit.hours import Contents, Row
from gateway.contract.compacted import Table
from gateway.contract.ledger import Charge, Segment
from gateway.errors import ManifestInvalid
from gateway.reports import hoursums

MEMORY_MAX = "512MB"  # an hour's requests are summed by segment in a stream; its other tables are small

_LIFE = "container, boot_ns, seq"
_NAMED = "container || '/' || boot_ns || '-' || seq AS filename"

_PROBLEMS = f"""
WITH charged AS (SELECT {_LIFE}, sku, sum(cost_picousd) AS cost FROM charges GROUP BY ALL),
     posted AS (SELECT {_LIFE}, sku, sum(cost_picousd) AS cost FROM postings GROUP BY ALL),
     infer AS (SELECT {_LIFE}, sum(cost_picousd) AS cost, sum(requests) AS requests FROM postings
               WHERE account = 'infer' GROUP BY ALL),
     receipts AS (SELECT {_LIFE}, sum(cost_picousd) AS cost, count(*) AS lines FROM requests GROUP BY ALL),
     whole AS (SELECT {_LIFE}, sum(cost) AS cost FROM charged GROUP BY ALL),
     owners AS (SELECT {_LIFE} FROM charges UNION SELECT {_LIFE} FROM postings UNION SELECT {_LIFE} FROM requests)
SELECT {_LIFE}, 'the header''s cost and the charges differ' FROM segments AS s LEFT JOIN whole AS w USING ({_LIFE})
WHERE s.cost_picousd <> coalesce(w.cost, 0)
UNION ALL
SELECT {_LIFE}, 'postings and charge of ''' || sku || ''' differ' FROM charged AS c FULL JOIN posted AS p USING ({_LIFE}, sku)
WHERE coalesce(c.cost, 0) <> coalesce(p.cost, 0)
UNION ALL
SELECT {_LIFE}, 'the header''s requests and those of the infer postings differ'
FROM segments AS s LEFT JOIN infer AS i USING ({_LIFE}) WHERE s.requests <> coalesce(i.requests, 0)
UNION ALL
SELECT {_LIFE}, 'the header''s requests and the rows with those collapsed differ'
FROM segments AS s LEFT JOIN receipts AS r USING ({_LIFE}) WHERE s.requests <> coalesce(r.lines, 0) + s.collapsed
UNION ALL
SELECT {_LIFE}, 'the receipts and the infer postings differ'
FROM segments AS s LEFT JOIN receipts AS r USING ({_LIFE}) LEFT JOIN infer AS i USING ({_LIFE})
WHERE coalesce(r.cost, 0) > coalesce(i.cost, 0) OR (s.collapsed = 0 AND coalesce(r.cost, 0) <> coalesce(i.cost, 0))
UNION ALL
SELECT {_LIFE}, 'there is no such segment' FROM owners ANTI JOIN segments USING ({_LIFE})
ORDER BY ALL
"""

_SUMS = f"""
SELECT count(*) FROM (
    SELECT * EXCLUDE (times), sum(times) AS more
    FROM (SELECT *, 1 AS times FROM ({hoursums.QUERY}) UNION ALL SELECT *, -1 AS times FROM sums)
    GROUP BY ALL HAVING more <> 0
)
"""

_COUNTS: dict[Table, str] = {
    "segments": "SELECT 'segments', count(*) FROM segments",
    "charges": "SELECT 'charges', count(*) FROM charges",
    "postings": "SELECT 'postings', count(*) FROM postings",
    "requests": "SELECT 'requests', count(*) FROM requests",
    "sums": "SELECT 'sums', count(*) FROM sums",
}

_thread = threading.local()  # its connection: opening one takes as long as adding up an hour


def read(paths: Mapping[Table, Path]) -> Contents:
    """Blocking. Raises `ManifestInvalid` for a file that cannot be read as its table."""
    try:
        connection = _connection()
        for table, path in paths.items():
            _view(connection, table, path)
        rows = _counts(connection, paths)
        return Contents(tuple(_segments(connection)), rows, tuple(_problems(connection, "sums" in paths)))
    except duckdb.Error as error:
        names = ", ".join(path.name for path in paths.values())
        raise ManifestInvalid(
            f"cannot be read as the ledger's tables ({names}): {str(error).splitlines()[0]}"
        ) from error


def _connection() -> duckdb.DuckDBPyConnection:
    if not hasattr(_thread, "connection"):
        _thread.connection = duckdb.connect(config={"memory_limit": MEMORY_MAX, "threads": "1"})
    connection: duckdb.DuckDBPyConnection = _thread.connection
    return connection


def _view(connection: duckdb.DuckDBPyConnection, table: Table, path: Path) -> None:
    relation = connection.read_parquet(str(path), hive_partitioning=False)
    if table in {"segments", "charges", "postings"}:
        later = [name for name in ("beyond", "since") if table == "charges" and name not in relation.columns]
        added = "".join(f", 0 AS {name}" for name in later)
        relation = relation.project(f"*, {_NAMED}{added}")
    relation.create_view(table)


def _counts(connection: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> dict[Table, int]:
    return dict(connection.execute(" UNION ALL ".join(_COUNTS[table] for table in tables)).fetchall())


def _segments(connection: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    charges: dict[str, list[Charge]] = defaultdict(list)
    found = connection.execute(
        "SELECT filename, sku, unit, quantity::HUGEINT, cost_picousd, beyond::HUGEINT, since FROM charges"
    )
    for name, *charge in found.fetchall():
        charges[name].append(Charge(*charge))
    found = connection.execute("""
        SELECT filename, sha256, container, boot_ns, seq, previous_sha256, from_ns, to_ns, price_book_sha256, cost_picousd,
               requests, collapsed
        FROM segments ORDER BY container, boot_ns, seq
    """)
    for name, sha256, *header in found.fetchall():
        yield Row(Segment(*header), sha256, tuple(charges[name]))


def _problems(connection: duckdb.DuckDBPyConnection, has_sums: bool) -> Iterator[str]:
    for container, _, seq, problem in connection.execute(_PROBLEMS).fetchall():
        yield f"segment {seq} of container {container}: {problem}"
    if has_sums and connection.execute(_SUMS).fetchall() != [(0,)]:
        yield "the hour's sums are not those of its segments"

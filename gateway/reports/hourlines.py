"""Compacted hours as rows of the tables that a report reads: stretches from sums, segments from detail. `tables` calls it."""

import glob
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import duckdb

from gateway.errors import ManifestInvalid
from gateway.reports.hours import LocalHour

Life = tuple[str, int]
Span = tuple[int, int]

# The name of a stretch: DuckDB takes files of equal names for one, so the place of its file is in it.
_NAME = "$name || ':' || container || '/' || boot_ns || '-' || seq"

_DETAIL = f"""
INSERT INTO lines BY NAME
SELECT $type AS type, {_NAME} AS filename, COLUMNS(lambda c: c <> 'phases') FROM one_file
"""

_SUMS = """
INSERT INTO lines BY NAME
SELECT parse_filename(filename, true) || ':' || container || '/' || boot_ns || '-' || seq AS filename, * EXCLUDE (filename)
FROM hour_sums
"""


def insert(connection: duckdb.DuckDBPyConnection, hours: Sequence[LocalHour]) -> None:
    """Into `lines`. Files were proven by their digests when they were fetched.

    Raises `ManifestInvalid` for copies that were damaged since.
    """
    try:
        _insert(connection, hours)
    except duckdb.Error as error:
        paths = [path for hour in hours for path in (hour.sums, *hour.detail) if path is not None]
        raise ManifestInvalid(
            f"copies of the compacted ledger in {paths[0].parent} are damaged ({str(error).splitlines()[0]}); "
            "delete that folder and run again"
        ) from error


def _insert(connection: duckdb.DuckDBPyConnection, hours: Sequence[LocalHour]) -> None:
    sums = [hour.sums for hour in hours if hour.sums is not None]
    if sums:
        _view(connection, "hour_sums", sums, with_names=True)
        connection.execute(_SUMS)
    for hour in hours:
        for kind, path in zip(("segment", "charge", "posting"), hour.detail, strict=False):
            _view(connection, "one_file", [path])
            connection.execute(_DETAIL, {"type": kind, "name": hour.name})


def requests(connection: duckdb.DuckDBPyConnection, hours: Sequence[LocalHour]) -> None:
    """Make the view `compacted_requests` of the files there are; with none, of no rows."""
    paths = [hour.requests for hour in hours if hour.requests is not None]
    if paths:
        _view(connection, "compacted_requests", paths)
    else:
        connection.execute("CREATE VIEW compacted_requests AS SELECT 0 AS at_ns WHERE false")


def spans(connection: duckdb.DuckDBPyConnection) -> tuple[dict[Life, list[Span]], set[Life]]:
    """What the lines claim of each life, and the lives whose end was billed."""
    held: dict[Life, list[Span]] = defaultdict(list)
    rows = connection.execute("SELECT container, boot_ns, from_ns, to_ns FROM lines WHERE type = 'segment'").fetchall()
    for container, boot_ns, from_ns, to_ns in rows:
        held[container, boot_ns].append((from_ns, to_ns))
    over = connection.execute("SELECT DISTINCT container, boot_ns FROM lines WHERE type = 'charge' AND beyond > 0")
    return held, {(container, boot_ns) for container, boot_ns in over.fetchall()}


def _view(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[Path], *, with_names: bool = False) -> None:
    escaped = [glob.escape(str(path)) for path in paths]  # DuckDB takes names for patterns
    read = connection.read_parquet(escaped, filename=with_names, hive_partitioning=False)
    read.create_view(name, replace=True)

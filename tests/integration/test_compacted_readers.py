"""The compacted ledger as it lies, read by DuckDB alone: sums are the report's, and files hold what engines are documented to read.

`tests.e2e.test_lake_engines` is the same for Spark, Hive's reader and others.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from gateway.contract import layout
from gateway.contract.compacted import TABLES, Table
from tests.support import lakes

PHYSICAL = {
    "string": ("BYTE_ARRAY", None, "UTF8"),
    "bigint": ("INT64", None, "INT_64"),
    "decimal(38,0)": ("FIXED_LEN_BYTE_ARRAY", "16", "DECIMAL"),
}
"""What Athena's and Trino's Hive tables take for a column of this type: no unsigned integers, no INT96."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake") / "store"
    root.mkdir()
    lakes.build(root, {})
    return root


@pytest.fixture(scope="module")
def interrupted(root: Path) -> Path:
    lakes.interrupt(root, root.parent / "interrupted")
    return root.parent / "interrupted"


@pytest.fixture
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def named(connection: duckdb.DuckDBPyConnection, root: Path) -> duckdb.DuckDBPyConnection:
    for table in TABLES:
        connection.execute(f"CREATE VIEW steelyard_{table} AS FROM {lakes.scan(root, table)}")
    return connection


def test_sums_of_postings_are_the_reports(root: Path, tables: duckdb.DuckDBPyConnection) -> None:
    """By account, model, version and hour; of two generations of an hour nothing counts twice."""
    [question, _] = lakes.asked()
    reported = lakes.reported(root)
    assert sum(reported.values()) > lakes.LARGEST
    assert lakes.grouped(named(tables, root).execute(question).fetchall()) == reported


def test_sums_say_it_again(root: Path, tables: duckdb.DuckDBPyConnection) -> None:
    """All but the hour that the first version compacted."""
    question = lakes.asked()[0].replace("steelyard_postings", "steelyard_sums WHERE type = 'posting'")
    without = "T".join(lakes.FIRST_VERSION)
    newer = {group: cost for group, cost in lakes.reported(root).items() if not group[3].startswith(without)}
    assert lakes.grouped(named(tables, root).execute(question).fetchall()) == newer


def test_an_interrupted_compaction_is_told_apart(
    root: Path, interrupted: Path, tables: duckdb.DuckDBPyConnection
) -> None:
    """Each table by itself counts nothing twice; what several agree on are the segments that `sums` has."""
    [_, question] = lakes.asked()
    named(tables, interrupted)
    whole = {table: f"({question.replace('steelyard_charges', f'steelyard_{table}')})" for table in TABLES[:3]}
    costs = {
        table: tables.execute(f"SELECT sum(cost_picousd) FROM {query}").fetchall() for table, query in whole.items()
    }
    assert costs["segments"] == costs["charges"] == costs["postings"]
    [(seen, kept)] = tables.execute(
        f"SELECT (SELECT count(*) FROM steelyard_segments), (SELECT count(*) FROM {whole['segments']})"
    ).fetchall()
    late, older = (
        _segments(tables, path)
        for path in (lakes.files(root, "segments", lakes.AGAIN)[1], *lakes.files(root, "segments", lakes.FIRST_VERSION))
    )
    assert seen - kept == late + older == 3 + 1


def _segments(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    [(count,)] = connection.execute(f"SELECT count(*) FROM read_parquet('{path}')").fetchall()
    return int(count)


@pytest.mark.parametrize("table", TABLES)
def test_files_hold_what_hives_tables_are_documented_to_take(table: Table, root: Path) -> None:
    columns = re.findall(r"^  `(\w+)` (.+?),?$", (lakes.DDL / f"{table}.sql").read_text(), re.MULTILINE)
    expected = [leaf for name, kind in columns for leaf in _physical(name, kind)]
    path = lakes.files(root, table)[0]
    schema = f"SELECT name, type, type_length, converted_type FROM parquet_schema('{path}')"
    with duckdb.connect() as connection:
        assert connection.execute(schema).fetchall()[1:] == expected
        [(compression, encodings)] = connection.execute(
            f"SELECT list(DISTINCT compression), list(DISTINCT encodings) FROM parquet_metadata('{path}')"
        ).fetchall()
    assert compression == ["ZSTD"]
    assert {word for several in encodings for word in several.split(", ")} <= {"PLAIN", "PLAIN_DICTIONARY", "RLE"}


def _physical(name: str, kind: str) -> list[tuple[str, str | None, str | None, str | None]]:
    if kind.startswith("struct<"):
        inner = (field.split(":") for field in kind.removeprefix("struct<").removesuffix(">").split(","))
        return [(name, None, None, None), *(leaf for field in inner for leaf in _physical(*field))]
    return [(name, *PHYSICAL[kind])]


def test_tables_folders_hold_finished_files_and_nothing_else(root: Path) -> None:
    """Nothing that an engine would have to know how to ignore: manifests and plans are elsewhere, half files nowhere."""
    for table in TABLES:
        found = [
            path.relative_to(root).as_posix() for path in (root / layout.compacted(table)).rglob("*") if path.is_file()
        ]
        assert found
        assert all(
            re.fullmatch(rf"compacted/v1/{table}/dt=2026-11-0\d/hr=\d\d/\d{{6}}\.parquet", name) for name in found
        )

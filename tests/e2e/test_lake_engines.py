"""The compacted ledger as it lies, read by Spark (and by Hive's own reader in it), pyarrow, polars, pandas and DataFusion.

Every row of every table is DuckDB's, and sums by account, model and hour are those of `steelyard costs`, to the pico-dollar. The
engines are in an environment of their own, which `make spark` creates before it runs this; Spark needs a Java 17.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any  # Any: what the sessions print

import pytest

from gateway.contract.compacted import TABLES, Table
from tests.support import lakes, ledgersim

PYTHON = os.environ.get("STEELYARD_SPARK_PYTHON", "")
HERE = Path(__file__).parent
DETAIL: tuple[Table, ...] = ("segments", "charges", "postings")
SPARK = ("spark", "spark row by row", "hive serde")
READERS = ("pyarrow", "polars", "pandas", "datafusion")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PYTHON, reason="`make spark` makes the environment that this needs"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`store` is a ledger, with lives from the real meter and writer; `interrupted` is it before its last compaction's end."""
    folder = tmp_path_factory.mktemp("lake")
    (folder / "store").mkdir()
    lakes.build(folder / "store", ledgersim.killed_twice().disk.objects)
    lakes.interrupt(folder / "store", folder / "interrupted")
    return folder


@pytest.fixture(scope="module")
def stored(folder: Path) -> dict[Table, lakes.Rows]:
    return lakes.stored(folder / "store")


@pytest.fixture(scope="module")
def reported(folder: Path) -> dict[lakes.Group, int]:
    return lakes.reported(folder / "store")


@pytest.fixture(scope="module")
def by_spark(folder: Path) -> dict[str, Any]:
    scratch = folder / "scratch"
    scratch.mkdir()
    return _said("spark_session.py", folder / "store", folder / "interrupted", lakes.DDL, scratch, cwd=scratch)


@pytest.fixture(scope="module")
def by_readers(folder: Path) -> dict[str, Any]:
    return _said("reader_session.py", folder / "store", lakes.DDL, cwd=folder)


def _said(session: str, *arguments: Path, cwd: Path) -> dict[str, Any]:
    command = [str(Path(PYTHON).absolute()), str(HERE / session), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("reader", SPARK)
def test_spark_reads_every_row(reader: str, by_spark: dict[str, Any], stored: dict[Table, lakes.Rows]) -> None:
    """Names with commas and newlines, the largest integers, an older file without later columns, an hour of two generations."""
    for table in TABLES:
        assert lakes.canonical(by_spark[reader][table]) == stored[table], table


@pytest.mark.parametrize("reader", SPARK)
def test_sparks_sums_are_the_reports(reader: str, by_spark: dict[str, Any], reported: dict[lakes.Group, int]) -> None:
    found = by_spark[reader]
    assert lakes.grouped(found["groups"]) == reported
    newer = {group: cost for group, cost in reported.items() if not group[3].startswith("T".join(lakes.FIRST_VERSION))}
    assert len(newer) < len(reported)
    assert lakes.grouped(found["groups of sums"]) == newer
    whole, of_sums = sum(reported.values()), sum(newer.values())
    assert whole > lakes.LARGEST, "else no sum passes 64 bits"
    expected = {"charges": whole, "segments": whole, "charge": of_sums, "posting": of_sums, "segment": of_sums}
    assert dict(found["bills"]) == expected


def test_a_sum_that_is_not_cast_is_refused_or_wraps(by_spark: dict[str, Any], reported: dict[lakes.Group, int]) -> None:
    """Why infra/athena says to cast. Nobody's sum is a little wrong: what wraps is off by 2**64."""
    wrapped = (sum(reported.values()) + 2**63) % 2**64 - 2**63
    assert by_spark["uncast"] == {"true": "ARITHMETIC_OVERFLOW", "false": wrapped}


def test_predicates_find_what_a_whole_reading_finds(by_spark: dict[str, Any]) -> None:
    for column, found in by_spark["chosen"].items():
        assert len(found) > 9, column
        assert all(count == there > 0 for _, count, there in found), column


def test_requests_lie_in_their_hour_once_the_session_says_utc(
    by_spark: dict[str, Any], stored: dict[Table, lakes.Rows]
) -> None:
    assert by_spark["times"] == [[len(stored["requests"])] * 2]


def test_athenas_properties_do_spark_no_harm(by_spark: dict[str, Any]) -> None:
    """They are kept as they are written, for whoever shares the catalog; Spark itself asks the partitions that it found."""
    kept = {name: value for name, value in by_spark["properties"].items() if name.startswith("projection.")}
    assert kept["projection.enabled"] == "true"
    assert all(f"'{name}' = '{value}'" in (lakes.DDL / "postings.sql").read_text() for name, value in kept.items())
    assert by_spark["folder"][0] == len(by_spark["spark"]["charges"])


def test_an_interrupted_compaction_is_told_apart(folder: Path, by_spark: dict[str, Any]) -> None:
    """Each file is whole or not there. Tables agree once only segments are counted that `sums`, which is written last, has."""
    there = lakes.stored(folder / "interrupted")
    seen, whole = by_spark["interrupted"], by_spark["interrupted, whole"]
    for table in DETAIL:
        assert lakes.canonical(seen[table]) == there[table]
    assert _cost("charges", seen) != _cost("postings", seen), "else nothing was interrupted"
    assert _cost("charges", whole) == _cost("postings", whole) == _cost("segments", whole)
    hour = lakes.columns("sums").index("hr")
    assert any(row[hour] == lakes.AGAIN[1] for row in there["sums"])
    place = lakes.columns("segments").index("seq")
    assert len(whole["segments"]) < len(seen["segments"]) == len({(*row[:2], row[place]) for row in seen["segments"]})


def _cost(table: Table, found: dict[str, list[list[int]]]) -> int:
    column = lakes.columns(table).index("cost_picousd")
    return sum(row[column] for row in found[table])


@pytest.mark.parametrize("reader", READERS)
def test_other_readers_read_every_row(reader: str, by_readers: dict[str, Any], stored: dict[Table, lakes.Rows]) -> None:
    for table in TABLES:
        names = lakes.columns(table)
        rows = [[row.get(name) for name in names] for row in by_readers[reader][table]]
        assert lakes.canonical(rows) == stored[table], table


@pytest.mark.parametrize("reader", READERS)
def test_other_readers_wrap_without_a_cast(
    reader: str, by_readers: dict[str, Any], reported: dict[lakes.Group, int]
) -> None:
    whole = sum(reported.values())
    assert by_readers[reader]["sums of charges"] == [(whole + 2**63) % 2**64 - 2**63, whole]


@pytest.mark.parametrize("dialect", ["athena", "hive", "spark"])
def test_statements_parse(dialect: str, by_readers: dict[str, Any]) -> None:
    for table in TABLES:
        found = by_readers["parsed"][dialect][table]
        assert [name for name, _ in found if name in lakes.columns(table)] == lakes.columns(table)
        assert {kind for _, kind in found} <= {"string", "bigint", "decimal(38, 0)"} | {
            kind for _, kind in found if kind.startswith("struct<")
        }

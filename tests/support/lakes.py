"""A compacted ledger that is hard to read, for the engines that are said to read it: made by the commands, as a user makes it.

Beside the lives that a test brings, a container whose names and amounts are as bad as the contract allows.
`tests.e2e.test_lake_engines` gives it to Spark and others; `test_compacted_readers` compares DuckDB's reading with the report.
"""

import asyncio
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any  # Any: rows as an engine gives them

import duckdb
import msgspec
from click.testing import CliRunner

from gateway.cli.costs import costs
from gateway.cli.ledger import ledger
from gateway.contract import codec, layout
from gateway.contract.compacted import TABLES, File, Manifest, Table
from gateway.contract.ledger import Charge, Phases, Posting, Request
from gateway.objectstore.local import LocalStore
from gateway.reports import hourlimits, reconcileposting
from tests.support import ledgers, providerbills
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Lines
from tests.support.providerbills import UNKNOWN, BillRow

DDL = Path(__file__).parents[2] / "infra" / "athena"
NOON, MIDNIGHT = range(5), range(12, 15)
"""Hours since noon in which these containers run."""
FIRST_VERSION, AGAIN = ("2026-11-05", "15"), ("2026-11-05", "13")
"""An hour as the first version wrote it, and one of two generations."""

LARGEST = hourlimits.NUMBER_MAX
LARGEST_QUANTITY = hourlimits.QUANTITY_MAX - 100
NAMES = (
    "",
    "a,b",
    "two\nlines\r\n",
    'Söhne & "Töchter" GmbH',
    "日本語🦆",
    "=cmd|'/C calc'!A0",
    "NULL",
    "\\N",
    "__HIVE_DEFAULT_PARTITION__",
    " padded ",
    "tab\tand 'quote'",
    "x" * 4000,
    "e\u0301",
)

Rows = list[list[object]]
Group = tuple[str, str, int, str]
"""Account, model, version, hour."""


def build(root: Path, lives: ledgers.Ledger) -> None:
    """A store below `root` with `lives` and two compacted days of its own; hour 13 was compacted again after late segments.

    A bill was posted too.
    """
    objects = lives | ledgers.container("b-2.x", [_lines(hour) for hour in NOON], length_ns=HOUR_NS)
    objects |= ledgers.container(
        "B_3", [_lines(hour) for hour in MIDNIGHT], boot_ns=T0_NS + MIDNIGHT[0] * HOUR_NS, length_ns=HOUR_NS
    )
    minutes = [[*ledgers.charges(5, 0), Posting("idle_cpu", VCPU, 5, 1)]] * 3
    objects |= ledgers.container("a", minutes, boot_ns=T0_NS + HOUR_NS)
    late = sorted(key for key in objects if f"dt={AGAIN[0]}/hr={AGAIN[1]}/" in key)[-3:]
    ledgers.write(root, {key: body for key, body in objects.items() if key not in late})
    compact(root)
    _as_the_first_version(root)
    ledgers.write(root, {key: objects[key] for key in late})
    compact(root)
    assert [path.name for path in files(root, "sums", AGAIN)] == ["000000.parquet", "000001.parquet"]
    rows = [BillRow("b-2.x", VCPU, 10**12, quantity="0.5", unit="Core-Hours"), BillRow(UNKNOWN, "egress", 10**9)]
    bill = providerbills.write(root.parent / "bill.csv", rows)
    author = reconcileposting.Author("tester", T0_NS + 30 * 24 * HOUR_NS)
    assert asyncio.run(reconcileposting.post(LocalStore(root), root.parent / "posting", bill, "*", author)).posted


def _lines(hour: int) -> Lines:
    """One segment, of a whole hour: every name twice, the largest amounts in hours 2 and 3, phases in the first."""
    at_ns = T0_NS + hour * HOUR_NS
    postings, requests = [], []
    for index, name in enumerate(NAMES):
        cost, tenant = 10**9 + hour * 1000 + index, NAMES[-index]
        model = name or "digits"
        postings.append(Posting("infer", VCPU, cost, 5, model, hour % 2, tenant, "ok", 1, 2))
        postings.append(Posting("resident", MEMORY, 7, LARGEST_QUANTITY + index, model, hour % 2))
        requests.append(
            Request(
                f"{hour}-{index}", at_ns + index * 250 * 10**9, model, hour % 2, "ok", 2, LARGEST, cost, tenant=tenant
            )
        )
    largest = LARGEST - sum(posting.cost_picousd for posting in postings)
    postings.append(Posting("idle_cpu", VCPU, largest if hour in {2, 3} else 10**12, 1))
    if hour == 0:
        postings.append(Posting("boot", VCPU, 11, 1, phases=Phases(imports_ns=5, ready_ns=LARGEST)))
    bill = Counter[str]()
    for posting in postings:
        bill[posting.sku] += posting.cost_picousd
    return [
        Charge(VCPU, "milli-vcpu-ns", 10**20, bill[VCPU], beyond=3 if hour == MIDNIGHT[-1] else 0),
        Charge(MEMORY, "byte-ns", 10**24, bill[MEMORY], since=LARGEST if hour == 1 else 0),
        *postings,
        *requests,
    ]


def interrupt(store: Path, copy: Path) -> None:
    """A copy of a built store, had its last compaction been killed when two of the hour's files were there."""
    shutil.copytree(store, copy)
    for kind in ("postings", "requests", "sums", "manifests"):
        (copy / layout.compacted(kind, *AGAIN, generation=1)).unlink()


def asked() -> list[str]:
    """The questions in infra/athena's README: cost by account, model, version and hour; charges of whole hours."""
    return re.findall(r"```sql\n(.+?)```", (DDL / "README.md").read_text(), re.DOTALL)


def compact(root: Path) -> None:
    options = ["compact", "--store", str(root), "--cache", str(root.parent / "copies")]
    result = CliRunner().invoke(ledger, options)
    assert result.exit_code == 0, (result.output, result.exception)


def _as_the_first_version(root: Path) -> None:
    """Manifests of version 1 had no sums; charges had no `beyond` and no `since`, postings no `phases`."""
    path = root / layout.compacted("manifests", *FIRST_VERSION)
    found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    kept = [file for file in found.files if file.table != "sums"]
    rewritten = tuple(_without_later_columns(root, file) for file in kept)
    path.write_bytes(codec.encode(msgspec.structs.replace(found, files=rewritten, schema_version=1)))
    (root / layout.compacted("sums", *FIRST_VERSION)).unlink()


def _without_later_columns(root: Path, file: File) -> File:
    dropped = {"charges": "beyond, since", "postings": "phases"}.get(file.table)
    if dropped is None:
        return file
    path, old = root / file.key, root.parent / "old.parquet"
    with duckdb.connect() as connection:
        rows = f"SELECT * EXCLUDE ({dropped}) FROM read_parquet('{path}', hive_partitioning = false)"
        connection.execute(f"COPY ({rows}) TO '{old}' (FORMAT parquet)")
    body = old.read_bytes()
    path.write_bytes(body)
    return msgspec.structs.replace(file, sha256=codec.sha256(body), size_bytes=len(body))


def files(root: Path, table: Table, hour: tuple[str, str] = ("*", "*")) -> list[Path]:
    return sorted((root / layout.compacted(table)).glob(f"dt={hour[0]}/hr={hour[1]}/*.parquet"))


def reported(root: Path) -> dict[Group, int]:
    """What `steelyard costs` says each group cost: everything that segments claim, which is what the tables hold."""
    options = ["--store", str(root), "--cache", str(root.parent / "reported"), "--view", "direct"]
    options += ["--by", "activity,model,version,hour", "--format", "json"]
    result = CliRunner().invoke(costs, options)
    assert result.exit_code == 0, (result.output, result.exception)
    rows = json.loads(result.stdout)["rows"]
    assert "correction" in {row["activity"] for row in rows}
    return {
        (row["activity"], row["model"], row["version"], row["hour"]): row["cost_picousd"]
        for row in rows
        if row["activity"] not in {"unattributed", "correction"} and row["cost_picousd"]
    }


def grouped(rows: Iterable[Sequence[Any]]) -> dict[Group, int]:
    """Answers to the README's first question, as a report names its groups. It leaves out what cost nothing."""
    return {
        (account, model, version, f"{dt}T{hr}:00:00Z"): int(cost)
        for account, model, version, dt, hr, cost in rows
        if cost
    }


def columns(table: Table) -> list[str]:
    """As the shipped statement has them, the partitions' last."""
    lines = (DDL / f"{table}.sql").read_text().splitlines()
    return [line.split("`")[1] for line in lines if line.startswith("  `")] + ["dt", "hr"]


def stored(root: Path) -> dict[Table, Rows]:
    """Every row of every table as DuckDB reads it, in some order; numbers as whole numbers."""
    return {table: _rows(root, table) for table in TABLES}


def _rows(root: Path, table: Table) -> Rows:
    names = ", ".join(f'"{name}"' for name in columns(table))
    query = f"SELECT {names} FROM {scan(root, table)}"
    with duckdb.connect() as connection:
        return canonical([list(row) for row in connection.execute(query).fetchall()])


def scan(root: Path, table: Table) -> str:
    pattern = str(root / layout.compacted(table)) + "/*/*/*.parquet"
    return f"read_parquet('{pattern}', hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"


def canonical(rows: Rows) -> Rows:
    """In one order, and numbers as Python has them, whatever an engine calls them."""
    return sorted(([_value(value) for value in row] for row in rows), key=json.dumps)


def _value(value: object) -> object:
    if value is None or isinstance(value, str | dict):
        return value
    assert value == int(value), value  # type: ignore[call-overload]
    return int(value)  # type: ignore[call-overload]

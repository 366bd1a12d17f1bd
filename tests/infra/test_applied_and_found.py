"""The applied stack is found again as it was applied: by a second plan, by an operator's commands, by those who ask the ledger."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.applied import bare, published
from tests.infra.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


def test_a_second_plan_finds_nothing_to_do(stack: Stack) -> None:
    done = stack.root.run("plan", "-detailed-exitcode", "-input=false", "-no-color", codes=(0, 2))
    assert done.returncode == 0, done.stdout[-6000:]


def test_an_operators_commands_find_the_stack(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Terraform itself, and by a file of what it prints."""
    asyncio.run(published(stack, "found", monkeypatch))
    file = tmp_path / "stack.json"
    file.write_text(stack.root.run("output", "-json").stdout)
    keys = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    env = bare() | dict(stack.root.environment) | keys | {"TMPDIR": str(tmp_path)}
    for where in (stack.root.folder, file):
        command = [sys.executable, "-m", "gateway", "--from-terraform", str(where), "models", "list"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "found" in done.stdout
    command = [sys.executable, "-m", "gateway", "--from-terraform", str(file), "schedule", "list"]
    listed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert "steelyard-local-tiny" in listed.stdout


def test_the_ledgers_tables_are_those_of_infra_athena(stack: Stack) -> None:
    tables = stack.account.client("glue").get_tables(DatabaseName=stack.outputs["observability"]["database"])[
        "TableList"
    ]
    folder = Path(__file__).parents[2] / "infra" / "athena"
    assert {table["Name"] for table in tables} == {f"steelyard_{file.stem}" for file in folder.glob("*.sql")}
    for table in tables:
        ddl = (folder / f"{table['Name'].removeprefix('steelyard_')}.sql").read_text()
        columns, partitions = ddl.split("PARTITIONED BY")
        assert pairs(table["StorageDescriptor"]["Columns"]) == re.findall(r"^  `(\w+)` (.+?),?$", columns, re.MULTILINE)
        assert pairs(table["PartitionKeys"]) == re.findall(r"`(\w+)` (\w+)", partitions)
        place = f"{stack.store}/compacted/v1/{table['Name'].removeprefix('steelyard_')}/"
        assert table["StorageDescriptor"]["Location"] == place
        properties = dict(re.findall(r"'([a-z.]+)' = '([^']*)'", ddl))
        assert {name: table["Parameters"][name] for name in properties} == properties


def pairs(columns: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(column["Name"], column["Type"]) for column in columns]

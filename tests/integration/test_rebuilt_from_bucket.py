"""Disaster recovery as infra/runbook.md tells it: a copy of the bucket is left, without what is derived."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import layout
from gateway.objectstore.local import LocalStore
from gateway.registry import releasing
from gateway.reports import compaction, expiring
from tests.support import gateways, goldens, models

ROW = dict(models.TINY_EXAMPLES.rows[0])
AUTHOR = releasing.Author(actor="ops", reason="as before", now_ns=1_700_000_000_000_000_000)
DERIVED = (f"{layout.MODELS}tiny/aliases/", layout.COMPACTED)


def steelyard(store: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "gateway", *arguments, "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def billed(store: Path) -> Any:
    """What `steelyard costs` says, but for when it was asked."""
    report = json.loads(steelyard(store, "costs", "--format", "json"))
    del report["as_of"]
    return report


def answer(store: Path, folder: Path) -> Any:
    """The prediction and the version that gave it, from a gateway that leaves by SIGTERM."""
    with gateways.running(store, folder) as gateway:
        said = gateway.post("/v1/predict/tiny", {"rows": [ROW]}).json
        assert gateway.terminate() == 0
    return said["version"], said["predictions"]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A store in use: two versions, two aliases, a rollback, a ledger, compacted hours."""
    root = tmp_path / "bucket"
    root.mkdir()
    store = LocalStore(root)
    asyncio.run(goldens.publish_tiny(store, seed=0, promote_to="champion"))
    asyncio.run(goldens.publish_tiny(store, seed=1, promote_to="candidate"))
    asyncio.run(releasing.promote(store, model="tiny", alias="champion", version=2, author=AUTHOR))
    asyncio.run(releasing.rollback(store, model="tiny", alias="champion", author=AUTHOR))
    return root


def test_a_copy_of_the_bucket_is_all_there_is_to_save(bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    before = answer(bucket, tmp_path / "before")
    bill = billed(bucket)

    restored = tmp_path / "restored"
    shutil.copytree(bucket, restored)
    shutil.rmtree(bucket)
    for prefix in DERIVED:
        shutil.rmtree(restored / prefix, ignore_errors=True)

    said = steelyard(restored, "models", "repair")
    assert "alias 'champion' of model 'tiny': version 1" in said
    assert "alias 'candidate' of model 'tiny': version 2" in said
    assert billed(restored) == bill
    steelyard(restored, "ledger", "verify")
    (tmp_path / "after").mkdir()
    assert answer(restored, tmp_path / "after") == before


def test_of_an_expired_ledger_the_compacted_files_are_part_of_what_to_save(bucket: Path, tmp_path: Path) -> None:
    """With them the bill is what it was; without them `verify` names what is gone."""
    day_ns = 24 * 3600 * 10**9
    answer(bucket, tmp_path)
    store = LocalStore(bucket)

    async def aged() -> None:
        later_ns = time.time_ns() + 30 * day_ns
        await compaction.compact(store, tmp_path / "copies", now_ns=later_ns)
        assert (await expiring.expire(store, older_ns=7 * day_ns, now_ns=later_ns)).expired

    bill = billed(bucket)
    asyncio.run(aged())
    restored = tmp_path / "restored"
    shutil.copytree(bucket, restored)
    shutil.rmtree(bucket)

    assert billed(restored) == bill
    assert "have expired" in steelyard(restored, "ledger", "verify")
    shutil.rmtree(restored / layout.COMPACTED)
    command = [sys.executable, "-m", "gateway", "ledger", "verify", "--store", str(restored)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "missing" in done.stdout) == (1, True)


def test_repairing_what_is_whole_changes_nothing(bucket: Path) -> None:
    aliases = bucket / layout.aliases("tiny")
    before = {path: path.read_bytes() for path in aliases.iterdir()}
    steelyard(bucket, "models", "repair", "tiny")
    assert {path: path.read_bytes() for path in aliases.iterdir()} == before


def test_an_empty_store_has_nothing_to_repair(tmp_path: Path) -> None:
    assert "no decision" in steelyard(tmp_path, "models", "repair")

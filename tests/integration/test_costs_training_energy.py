"""`steelyard costs --energy` tells training: recorded by attempts, published in a manifest, in every form, unknown where it is."""

import asyncio
import csv
import io
import json
import re
from pathlib import Path

import duckdb
import msgspec
import pytest
from click.testing import CliRunner

from gateway.cli.costs import costs as command
from gateway.contract.runs import Progress
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from tests.support import ledgers, models, trainingruns
from tests.support.trainingruns import BOX, S
from trainers.runs import reading, records, settle

CPU_BOX = msgspec.structs.replace(BOX, gpu="", gpus=0, vcpu_milli=2000, memory_bytes=4 << 30)
GPU_BOX = msgspec.structs.replace(BOX, vcpu_milli=4000, memory_bytes=16 << 30)
STEPS = Progress(step_last=10, step_saved=10, steps_ns=50 * S, cpu_ns=100 * S)
COUNTED = msgspec.structs.replace(STEPS, utilisation=0.5, energy_nj=2_000 * 10**9)


async def trained(
    store: ObjectStore,
    model: str,
    machine: records.Machine,
    *progress: Progress,
    placement: records.Placement = trainingruns.SPOT,
) -> None:
    """A run of so many attempts on this machine, the last done, and its version."""
    asked = trainingruns.run(f"{model}-run", model=model)
    for number, one in enumerate(progress, 1):
        attempt = await trainingruns.opened(store, asked, machine=machine, placement=placement)
        await trainingruns.closed(store, attempt, "done" if number == len(progress) else "preempted", one)
    attempts = [(tried.attempt, tried.end) for tried in await reading.tried(store, asked.run_id)]
    paid = settle.training_cost([(attempt, end) for attempt, end in attempts if end])
    manifest, contents = models.manifest_of(model, models.TINY_SIGNATURE, {"fp32": models.tiny_graph()})
    await models.publish_files(store, msgspec.structs.replace(manifest, training_cost=paid), contents)


async def written(root: Path) -> None:
    """Three models that answer: trained on a CPU, on a GPU in two attempts, and before attempts recorded what they used."""
    store = LocalStore(root)
    await trained(store, "cpu", CPU_BOX, STEPS, placement=trainingruns.Placement())
    await trained(store, "gpu", GPU_BOX, COUNTED, COUNTED)
    await trained(store, "old", BOX, Progress(step_last=10, step_saved=10, steps_ns=50 * S))
    served = [
        ledgers.Posting("infer", ledgers.VCPU, 500, 10**15, model, 1, "acme", "ok", 10, 250)
        for model in ("cpu", "gpu", "old")
    ]
    ledgers.write(root, ledgers.container("c", [[*ledgers.charges(1500, 0), *served]]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    asyncio.run(written(folder))
    return folder


def said(root: Path, *arguments: str) -> str:
    options = ["--store", str(root), "--cache", str(root.parent / "cache"), "--energy"]
    result = CliRunner(env={"COLUMNS": "130"}).invoke(command, [*options, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


PORTIONS = ("--amortize", "rows:1000")


def test_the_table_tells_training_beside_the_rows(root: Path) -> None:
    text = said(root, *PORTIONS)
    table = text[text.index("Energy and carbon of training") :]
    assert re.search(r"^cpu@1 .* assumed$", table, re.MULTILINE)
    assert re.search(r"^gpu@1 .* modelled$", table, re.MULTILINE)
    assert re.search(r"^old@1 +unknown +unknown$", table, re.MULTILINE)
    assert "energy of training old@1 is unknown, which is not zero: 1 of its 1 attempts did not record" in table
    assert "of training gpu@1 NVML counted 1.111 Wh at the GPUs; the rest is modelled" in table
    assert "training begun in this period, in no row: 3 runs, 4 attempts = " in table
    assert "unknown, which is not zero, for 1 of the attempts" in table
    assert "per 1,000 predictions: serving alone, training is not in; that is in the table of training" in text
    assert max(map(len, table.splitlines()[:5])) <= 130


def test_without_portions_what_began_is_told_and_where_the_rest_is(root: Path) -> None:
    text = said(root)
    assert "training is not in; that is told with --amortize" in text
    assert "training begun in this period, in no row: 3 runs, 4 attempts = " in text
    assert "Energy and carbon of training" not in text
    only = said(root, "--model", "cpu")
    assert "in no row: 1 run, 1 attempt = " in only
    assert "unknown" not in only


def test_json_and_csv_and_parquet_carry_the_same_integers(root: Path) -> None:
    report = json.loads(said(root, *PORTIONS, "--json"))
    told = {row["model"]: row for row in report["training"]}
    assert (told["old"]["energy"], told["old"]["expensed_picousd"] is None) == (None, False)
    rows = list(csv.DictReader(io.StringIO(said(root, *PORTIONS, "--csv"))))
    assert sum(int(row["cost_picousd"] or 0) for row in rows) == report["charged_picousd"]
    assert sum(int(row["energy_nj"] or 0) for row in rows) == report["energy"]["whole"]["energy_nj"]["value"]
    for model in ("cpu", "gpu"):
        mine = [row for row in rows if row["training_model"] == model]
        assert [row["training_portion"] for row in mine] == ["earlier", "expensed", "remaining"]
        for column, name, end in (("energy", "energy_nj", "value"), ("embodied_low", "embodied_ng", "low")):
            unit = name.rpartition("_")[2]
            total = sum(int(row[f"training_{column}_{unit}"]) for row in mine)
            assert total == told[model]["energy"]["whole"][name][end]
        assert sum(int(row["training_cost_picousd"]) for row in mine) == told[model]["cost_picousd"]
    unknown = [row for row in rows if row["training_model"] == "old"]
    assert {row["training_energy_tier"] for row in unknown} == {"unknown"}
    assert {row["training_energy_nj"] for row in unknown} == {""}
    path = root.parent / "costs.parquet"
    said(root, *PORTIONS, "--format", "parquet", "--out", str(path))
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT sum(training_carbon_ng), sum(cost_picousd) FROM '{path}'").fetchone()
    carbon = sum(int(row["training_carbon_ng"] or 0) for row in rows)
    assert found == (carbon, report["charged_picousd"])


def test_scores_are_of_the_period_and_add_up_to_both(root: Path) -> None:
    report = json.loads(said(root, *PORTIONS, "--json"))
    [energy] = [row["energy"] for row in report["training"] if row["model"] == "cpu"]
    expensed = energy["expensed"]
    assert energy["rows"] == 250
    carbon = expensed["operational_ng"]["value"] + expensed["embodied_ng"]["value"]
    assert energy["training_sci_per_1000_rows_ng"]["value"] == 4 * carbon
    parts = [energy[f"{part}_sci_per_1000_rows_ng"]["value"] for part in ("training", "serving")]
    assert energy["sci_per_1000_rows_ng"]["value"] == sum(parts)
    serving = next(row for row in report["rows"] if row["model"] == "cpu")["sci_per_1000_rows_ng"]
    assert energy["serving_sci_per_1000_rows_ng"] == serving


def test_csv_without_portions_has_no_column_of_training(root: Path) -> None:
    assert "training" not in said(root, "--csv").splitlines()[0]


def test_the_page_tells_what_the_table_tells(root: Path) -> None:
    path = root.parent / "costs.html"
    said(root, *PORTIONS, "--html", str(path))
    page = path.read_text()
    assert "Energy and carbon of training, beside the rows" in page
    assert "is unknown, which is not zero" in page
    assert "per 1,000 predictions, without training" in page
    assert "modelled; training is on top" in page
    assert page.count("training is assumed: it ran nobody knows where") == 1
    assert page.count("training, its part of this period: ") == 2
    said(root, "--html", str(path))
    page = path.read_text()
    assert "training begun in this period, in no row" in page
    assert "is told with --amortize" in page
    assert "modelled; training is not in" in page


def test_training_is_told_where_nothing_was_served_yet(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    asyncio.run(trained(LocalStore(tmp_path / "store"), "cpu", CPU_BOX, STEPS))
    text = said(tmp_path / "store")
    assert "no costs yet" in text
    assert "training begun in this period, in no row: 1 run, 1 attempt = " in text

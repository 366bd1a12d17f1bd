"""The train command from end to end on the tiny job, and what a user sees when something is wrong."""

import asyncio
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.cli.models import models
from gateway.contract import codec, layout, prices
from gateway.contract.golden import Golden
from gateway.contract.manifest import Evaluation, Examples, Manifest, Tradeoff
from gateway.contract.promotions import Decision
from gateway.contract.registry import Promotion, VersionRecord
from gateway.contract.runs import MachineUse, TrainingCharge
from gateway.objectstore.opening import open_store
from gateway.repository import golden
from gateway.runtime.session import Session
from gateway.runtime.tensors import Tensors
from trainers import attempt, card, comparison
from trainers.cli.train import train
from trainers.errors import SpecError
from trainers.runs.commands import runs
from trainers.runs.machine import Machine, Placement

RECIPE = "tests.support.tinyjob:tiny_job"


def invoke(folder: Path, *arguments: str, recipe: str = RECIPE) -> Result:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return CliRunner().invoke(train, [recipe, "--store", str(folder / "store"), *arguments])


def stored(folder: Path, key: str) -> bytes:
    return asyncio.run(open_store(str(folder / "store")).get(key)).body


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("train")
    return folder, invoke(folder, "--run-id", "first", "--epochs", "1", "--seed", "7")


@pytest.fixture
def manifest(trained: tuple[Path, Result]) -> Manifest:
    record = codec.decode(stored(trained[0], layout.version("tiny", 1)), VersionRecord)
    return codec.decode(stored(trained[0], layout.manifest("tiny", record.manifest_sha256)), Manifest)


def test_a_run_says_what_it_measured_and_published(trained: tuple[Path, Result]):
    _, result = trained
    assert result.exit_code == 0, result.output
    for part in (
        "baseline:logistic",
        "int8-rowwise",
        "roc_auc",
        "load ms",
        "training cost: 0.0",
        "version 1",
        "'champion'",
    ):
        assert part in result.stdout


def test_what_is_published_is_complete(trained: tuple[Path, Result], manifest: Manifest):
    folder, _ = trained
    alias = codec.decode(stored(folder, layout.alias("tiny", "champion")), Promotion)
    contents = {file.role: stored(folder, layout.blob("tiny", file.sha256)) for file in manifest.files}
    assert alias.version == 1
    assert len(codec.decode(contents["examples"], Examples).rows) == 8
    assert contents["card"].decode().startswith("# tiny\n")
    assert stored(folder, layout.price_book(manifest.training_cost.price_book_sha256)) == prices.load().data


def test_the_table_of_trade_offs_is_published_and_drawn(trained: tuple[Path, Result], manifest: Manifest):
    assert all(isinstance(variant.tradeoff, Tradeoff) for variant in manifest.variants)
    assert isinstance(manifest.skipped, dict)
    assert manifest.skipped["int8-gather"] == "the graph has nothing that this recipe changes"
    drawn = manifest.file("plot-tradeoffs.png")
    assert stored(trained[0], layout.blob("tiny", drawn.sha256)).startswith(b"\x89PNG")


def test_every_variant_has_golden_vectors_and_the_gateway_accepts_them(
    trained: tuple[Path, Result], manifest: Manifest, tmp_path: Path
):
    folder, _ = trained
    blobs = {file.name: stored(folder, layout.blob("tiny", file.sha256)) for file in manifest.files}
    vectors = codec.decode(blobs["golden.json"], Golden)
    assert vectors.rows == 8
    assert {expected.variant for expected in vectors.expected} == {variant.id for variant in manifest.variants}

    async def loaded(variant: str) -> bool:
        path = tmp_path / f"{variant}.onnx"
        path.write_bytes(blobs[path.name])
        session = Session(path, manifest)

        async def run(inputs: Tensors) -> Tensors:
            return session.run(inputs)

        return await golden.check(vectors, variant, "tiny", run)

    assert all(asyncio.run(loaded(variant.id)) for variant in manifest.variants)


def test_the_manifest_says_how_to_train_it_again(manifest: Manifest):
    assert (manifest.lineage.recipe, manifest.lineage.seed, manifest.lineage.run_id) == (RECIPE, 7, "first")
    assert manifest.lineage.parameters["epochs"] == 1
    assert manifest.lineage.environment["onnxruntime"].startswith("1.")
    assert [evaluation.subject for evaluation in manifest.evaluations][:2] == ["baseline:logistic", "fp32"]
    assert manifest.training_cost.sku == "c7i.large"


def test_what_training_used_is_in_the_manifest_and_in_the_ledger(trained: tuple[Path, Result], manifest: Manifest):
    folder, _ = trained
    charge = codec.decode(stored(folder, layout.training_charge("first", 1)), TrainingCharge)
    assert manifest.training_cost.attempts
    [one] = manifest.training_cost.attempts
    assert isinstance(one.use, MachineUse)
    assert isinstance(charge.use, MachineUse)
    assert one.use.allotted == charge.use.allotted
    assert one.use.allotted.vcpu_milli > 0
    assert 0 < one.use.cpu_ns <= charge.use.cpu_ns
    assert 0 < one.use.held_ns <= charge.use.held_ns == charge.elapsed_ns


def test_the_same_run_again_publishes_nothing_new(trained: tuple[Path, Result]):
    folder, first = trained
    again = invoke(folder, "--run-id", "first", "--epochs", "1", "--seed", "7", "--quiet")
    assert again.exit_code == 0
    assert again.stdout.split()[:2] == ["tiny", "1"]
    assert again.stdout.split()[2][:12] in first.stdout


def test_a_worse_version_is_a_successful_run_that_is_held_back(trained: tuple[Path, Result]):
    folder, _ = trained
    held = invoke(folder, "--run-id", "worse", "--epochs", "1", recipe="tests.support.shuffledjob:shuffled_job")
    assert held.exit_code == 0, held.output
    said = " ".join(held.stdout.split())
    assert "newest roc_auc" in said
    assert "hold: version 2 is held back: frozen roc_auc gains -0." in said
    assert "version 1 goes on" in said
    assert "promoted:" not in said
    assert codec.decode(stored(folder, layout.alias("tiny", "champion")), Promotion).version == 1
    decision = codec.decode(stored(folder, layout.decision("worse")), Decision)
    assert {"newest roc_auc", "frozen roc_auc"} <= {gate.name for gate in decision.failed}
    assert decision.gates[-1].name == "promotions_today"

    shown = CliRunner().invoke(runs, ["show", "worse", "--store", str(folder / "store")])
    assert "decision: hold, version 2 is held back" in " ".join(shown.stdout.split())
    history = CliRunner().invoke(models, ["history", "tiny", "--store", str(folder / "store")])
    assert "run first: version 1 is the first: there is no other to compare it with [decision " in history.stdout


def test_nobody_decides_where_no_alias_is_asked_for(trained: tuple[Path, Result]):
    folder, _ = trained
    arguments = ("--run-id", "worse", "--epochs", "1", "--promote", "none")
    kept = invoke(folder, *arguments, recipe="tests.support.shuffledjob:shuffled_job")
    assert kept.exit_code == 0
    assert "held back" not in kept.stdout


def test_a_challenger_is_given_its_alias_whatever_the_comparison_says(trained: tuple[Path, Result]):
    folder, _ = trained
    arguments = ("--run-id", "worse", "--epochs", "1", "--promote", "challenger")
    given = invoke(folder, *arguments, recipe="tests.support.shuffledjob:shuffled_job")
    assert given.exit_code == 0
    said = " ".join(given.stdout.split())
    assert "as champion it would be held back" in said
    assert "alias 'challenger' answers with version 2" in said
    assert codec.decode(stored(folder, layout.alias("tiny", "champion")), Promotion).version == 1


def test_a_run_id_used_for_something_else_is_refused(trained: tuple[Path, Result]):
    refused = invoke(trained[0], "--run-id", "first", "--epochs", "1", "--seed", "8")
    assert refused.exit_code == 64
    assert "run 'first' was made for something else: seed was 7, is 8" in refused.stderr


def test_a_model_that_may_be_no_better_than_its_baseline_is_said_to_be(manifest: Manifest):
    def measured(**gains: tuple[float, float]) -> Evaluation:
        return Evaluation(subject="fp32", split="test", rows=100, metrics=dict.fromkeys(gains, 0.5), gains=gains)

    assert comparison.doubtful([measured(roc_auc=(0.1, 0.2), brier=(0.001, 0.01))]) == []
    assert comparison.doubtful([measured(roc_auc=(-0.01, 0.2), brier=(-0.2, -0.1))]) == ["roc_auc", "brier"]
    served = next(found for found in manifest.evaluations if found.subject == manifest.serve)
    assert served.gains
    assert comparison.doubtful(manifest.evaluations) == [name for name, (low, _) in served.gains.items() if low <= 0]


def test_an_unknown_recipe_exits_64_with_the_list(tmp_path: Path):
    refused = invoke(tmp_path, recipe="nosuch")
    assert refused.exit_code == 64
    assert "no recipe 'nosuch'; there are: flights" in refused.stderr
    assert "Traceback" not in refused.output


def test_debug_shows_where_it_failed(tmp_path: Path):
    failed = CliRunner().invoke(train, ["nosuch", "--store", str(tmp_path)], obj={"debug": True})
    assert isinstance(failed.exception, SpecError)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--run-id", "../escape"), 64, "must be lower case letters"),
        (("--promote", "Champion!"), 2, "is not one of 'champion', 'challenger', 'none'"),
        (("--set", "hidden"), 2, "--set takes NAME=VALUE, not 'hidden'"),
        (("--set", "hiden=3"), 64, "hiden"),
        (("--epochs", "0"), 2, "0 is not in the range x>=1"),
        (("--max-cost", "-1"), 2, "-1.0 is not in the range x>0"),
        (("--checkpoint-every", "5"), 64, "'5' is not a length of time"),
        (("--grace", "soon"), 64, "'soon' is not a length of time"),
        (("--device", "tpu"), 2, "'tpu' is not one of 'cpu', 'cuda'"),
        (("--sign-key", "nowhere.pem"), 2, "nowhere.pem"),
    ],
)
def test_a_mistake_is_refused_before_training(tmp_path: Path, arguments: tuple[str, str], code: int, sentence: str):
    refused = invoke(tmp_path, *arguments)
    assert refused.exit_code == code
    assert sentence in " ".join(refused.stderr.split())
    assert not (tmp_path / ".steelyard").exists()


def test_a_store_that_cannot_be_written_is_found_before_training(tmp_path: Path):
    (tmp_path / "store").write_text("a file where the folder should be")
    failed = invoke(tmp_path)
    assert failed.exit_code == 64
    assert "store" in failed.stderr
    assert not (tmp_path / ".steelyard").exists()


def test_the_module_alone_maps_errors_to_exit_codes(tmp_path: Path):
    command = [sys.executable, "-m", "trainers", "nosuch", "--store", "ftp://nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert "no recipe 'nosuch'" in done.stderr


def test_help_does_not_import_torch():
    code = "import sys; import trainers.cli.train; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gpu_is_unpriced_until_its_sku_is_named():
    gpu = Machine(cpu="x", cpus=4, gpu="NVIDIA L4", gpus=1, platform="local")
    book = prices.load()
    assert attempt.sku_of(gpu, Placement(), book) == "unknown"
    assert book.price("unknown") is None
    assert attempt.sku_of(msgspec.structs.replace(gpu, gpus=0), Placement(), book) == "c7i.large"
    found = Placement(instance="c7i.large")
    assert attempt.sku_of(gpu, found, book) == "c7i.large"


def test_a_cell_cannot_break_the_card():
    assert card.table(("a",), [("x | y",)]) == "| a |\n| --- |\n| x \\| y |"


def test_every_option_is_explained():
    assert all(option.help for option in train.params if isinstance(option, click.Option))


def test_a_recipe_beside_the_user_is_found_from_the_console_script_too(tmp_path: Path):
    """Whose path begins with the folder of the script, where `python -m` has the working folder."""
    (tmp_path / "beside_the_user.py").write_text("from tests.support.tinyjob import tiny_job\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [place for place in sys.path if place] + ["elsewhere"])
        result = invoke(tmp_path, "--set", "hidden=3", recipe="beside_the_user:tiny_job")
    assert "recipe 'beside_the_user:tiny_job' has no parameter 'hidden'" in result.output


def test_seed_and_epochs_may_be_set_like_parameters(tmp_path: Path):
    result = invoke(tmp_path, "--set", "epochs=1", "--set", "seed=-4")
    assert "seed is -4; it must be at least 0" in result.output


def test_a_cap_on_a_machine_without_a_price_is_refused_before_the_data_is_loaded(tmp_path: Path):
    result = invoke(tmp_path, "--max-cost", "1", "--priced-as", "c7i.lagre")
    assert result.exit_code == 64
    assert "the price book has none for 'c7i.lagre'" in result.output
    assert "load" not in result.output


def test_a_machine_type_without_a_price_is_refused_without_a_cap_too(tmp_path: Path):
    result = invoke(tmp_path, "--priced-as", "c7i.lagre")
    assert result.exit_code == 64
    assert "the price book has none for 'c7i.lagre' per hour; name a machine type" in result.output

"""`steelyard import` from end to end: the command, what it publishes, and a real gateway that answers by rows and tensors."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result

from gateway.contract import codec
from gateway.contract.golden import Golden
from gateway.contract.manifest import Manifest
from gateway.objectstore.opening import open_store
from gateway.registry.reading import Registry
from tests.support import foreign, gateways, signingkeys
from tests.support.gateways import Gateway
from trainers import exits
from trainers.cli.imports import bring

ROWS = 256
BATCHES = ("--batches", "1,8")


def invoke(folder: Path, file: Path, *arguments: str) -> Result:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return CliRunner().invoke(bring, [str(file), "--store", str(folder / "store"), *BATCHES, *arguments])


def published(folder: Path, name: str, version: str = "champion") -> tuple[int, Manifest]:
    async def read() -> tuple[int, Manifest]:
        async with contextlib.aclosing(open_store(str(folder / "store"))) as store:
            number, sha256 = await Registry(store).resolve(name, version)
            return number, await Registry(store).manifest(name, sha256)

    return asyncio.run(read())


def blob(folder: Path, manifest: Manifest, role: str) -> bytes:
    [file] = [file for file in manifest.files if file.role == role]
    data = (folder / "store" / "models" / manifest.model / "blobs" / "sha256" / file.sha256).read_bytes()
    assert codec.sha256(data) == file.sha256
    return data


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """A store with one model of each kind."""
    folder = tmp_path_factory.mktemp("imports")
    x, classes = foreign.rows_of(ROWS)
    network = foreign.save(foreign.classifier(), folder, "network.onnx")
    answers = ort.InferenceSession(str(network)).run(None, {"x": x})[0]
    np.savez(folder / "golden.npz", x=x, targets=classes, probabilities=answers)
    trees = foreign.save(foreign.trees(), folder, "trees.onnx")
    state = foreign.save(foreign.stateful(), folder, "stateful.onnx")
    axes = ("--batch-axis", "state=1", "--batch-axis", "next=1")
    asked = {
        "network": (network, "--golden", "golden.npz", "--labels", "a,b,c"),
        "trees": (trees, "--columns", "X=age,weight", "--nullable", "age", "--labels", "low,high,odd"),
        "text": (foreign.save(foreign.trees(is_text=True), folder, "text.onnx"), "--task", "classify"),
        "mixing": (foreign.save(foreign.mixing(), folder, "mixing.onnx"),),
        "stateful": (state, "--constant", "rate=8000", *axes),
    }
    return folder, {
        name: invoke(folder, file, "--name", name, *arguments) for name, (file, *arguments) in asked.items()
    }


@pytest.fixture(scope="module")
def gateway(imported: tuple[Path, dict[str, Result]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateways.running(imported[0] / "store", tmp_path_factory.mktemp("gateway")) as running:
        yield running


def test_every_kind_is_published(imported: tuple[Path, dict[str, Result]]):
    for name, result in imported[1].items():
        assert result.exit_code == 0, (name, result.output)
        assert f"model '{name}' version 1" in result.stdout


def test_with_golden_rows_the_whole_search_runs(imported: tuple[Path, dict[str, Result]]):
    folder, results = imported
    _, manifest = published(folder, "network")
    assert len(manifest.variants) > 1
    assert "NO quantized candidate" not in results["network"].stdout
    [served] = [each for each in manifest.evaluations if each.subject == manifest.serve]
    low, high = served.intervals["accuracy"]
    assert served.rows == ROWS // 2
    assert low <= served.metrics["accuracy"] <= high
    assert manifest.lineage.data[0].rows == ROWS


def test_without_golden_rows_nothing_is_quantized_and_it_says_so(imported: tuple[Path, dict[str, Result]]):
    folder, results = imported
    _, manifest = published(folder, "trees")
    assert [variant.id for variant in manifest.variants] == ["fp32"]
    assert not manifest.evaluations
    assert "NO quantized candidate was offered" in manifest.choice
    assert "NO quantized candidate was offered" in " ".join(results["trees"].stdout.split())


def test_where_it_came_from_is_recorded(imported: tuple[Path, dict[str, Result]]):
    folder, results = imported
    _, manifest = published(folder, "stateful")
    known = manifest.lineage.parameters
    assert manifest.lineage.recipe == "import"
    assert known["file_sha256"] == codec.sha256((folder / "stateful.onnx").read_bytes())
    assert known["producer"] == "elsewhere"
    assert known["constants"] == '{"rate":8000}'
    assert (manifest.training_cost.sku, manifest.training_cost.cost_picousd) == ("imported", 0)
    assert "trained elsewhere" in results["stateful"].stdout
    assert "trained elsewhere" in blob(folder, manifest, "card").decode()
    assert codec.decode(blob(folder, manifest, "golden"), Golden).of_variant("fp32") is not None
    assert blob(folder, manifest, "sbom")


def test_a_gateway_answers_rows_of_named_columns(gateway: Gateway):
    answer = gateway.post(
        "/v1/predict/trees",
        {"rows": [{"age": 0.1, "weight": 1.0}, {"age": 2.0, "weight": 1.0}, {"age": None, "weight": 1}]},
    )
    assert answer.status == 200, answer.body
    assert [row["label"] for row in answer.json["predictions"]] == [0, 1, 0]
    assert answer.json["predictions"][1]["probabilities"] == pytest.approx([0.1, 0.8, 0.1])
    assert gateway.post("/v1/predict/trees", {"rows": [{"age": 0.1, "weight": None}]}).status == 400


def test_a_gateway_answers_tensors(imported: tuple[Path, dict[str, Result]], gateway: Gateway):
    x, _ = foreign.rows_of(3, seed=9)
    tensor = {"name": "x", "datatype": "FP32", "shape": [3, 32], "data": x.ravel().tolist()}
    answer = gateway.post("/v2/models/network/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer.body
    [got] = answer.json["outputs"]
    direct = ort.InferenceSession(str(imported[0] / "network.onnx")).run(None, {"x": x})[0]
    assert np.array(got["data"]).reshape(got["shape"]) == pytest.approx(direct, abs=0.05)


def test_a_gateway_names_the_classes(gateway: Gateway):
    x, classes = foreign.rows_of(4, seed=3)
    answer = gateway.post("/v1/predict/network", {"rows": [{"x": row.tolist()} for row in x]})
    assert answer.status == 200, answer.body
    assert [row["label"] for row in answer.json["predictions"]] == ["abc"[each] for each in classes]


def test_a_gateway_answers_labels_of_text(gateway: Gateway):
    answer = gateway.post("/v1/predict/text", {"rows": [{"X": [0.0, 0.0]}, {"X": [1.0, 0.0]}]})
    assert [row["label"] for row in answer.json["predictions"]] == ["low", "high"], answer.body


def test_requests_that_would_change_each_others_answers_share_no_batch(
    imported: tuple[Path, dict[str, Result]], gateway: Gateway
):
    [variant] = published(imported[0], "mixing")[1].variants
    assert (variant.batch_invariant, variant.max_batch) == (False, 1)
    assert "NO request shares a batch" in " ".join(imported[1]["mixing"].stdout.split())
    with ThreadPoolExecutor(8) as pool:
        asked = [{"rows": [{"x": [float(i)] * 4}]} for i in range(1, 33)]
        answers = list(pool.map(lambda body: gateway.post("/v1/predict/mixing", body), asked))
    assert all(answer.json["predictions"] == [{"y": [1.0] * 4}] for answer in answers)


def test_a_client_carries_a_state_through_a_gateway(gateway: Gateway):
    state = [[0.0] * 4] * 2
    for step in range(1, 4):
        answer = gateway.post("/v1/predict/stateful", {"rows": [{"chunk": [1.0] * 4, "state": state}]})
        assert answer.status == 200, answer.body
        [row] = answer.json["predictions"]
        state = row["next"]
        assert row["score"] == [8.0 * step]


def test_the_same_import_again_is_the_same_version(imported: tuple[Path, dict[str, Result]]):
    folder, _ = imported
    arguments = ("--golden", "golden.npz", "--labels", "a,b,c")
    again = invoke(folder, folder / "network.onnx", "--name", "network", *arguments)
    assert again.exit_code == 0, again.output
    assert "imported with these options before" in again.stdout
    other = invoke(folder, folder / "network.onnx", "--name", "network", "--promote", "none")
    assert "version 2" in other.stdout
    assert published(folder, "network")[0] == 1


def test_promotion_and_signature_are_options(tmp_path: Path):
    file = foreign.save(foreign.trees(), tmp_path)
    key = signingkeys.make(tmp_path, "key")
    unsigned = invoke(tmp_path, file, "--name", "m", "--promote", "challenger")
    assert "'challenger' answers with version 1" in unsigned.stdout
    signed = invoke(tmp_path, file, "--name", "m", "--promote", "none", "--sign-key", str(key.private))
    assert signed.exit_code == 0, signed.output
    number, manifest = published(tmp_path, "m", "challenger")
    assert (number, manifest.model) == (1, "m")
    assert len(list((tmp_path / "store" / "models" / "m" / "signatures").rglob("*.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--name", "No Name"), exits.BAD_SPEC, "lower case"),
        (("--name", "m", "--constant", "x"), exits.BAD_SPEC, "NAME=VALUE"),
        (("--name", "m", "--batches", "0"), exits.BAD_SPEC, "--batches"),
        (("--name", "m", "--golden", "absent.npz"), exits.BAD_DATA, "No such file"),
        (("--name", "m", "--golden", "few.npz"), exits.BAD_DATA, "128 are needed"),
        (("--name", "m", "--golden", "other.npz"), exits.BAD_MODEL, "not the model that made the golden file"),
        (("--name", "m", "--golden", "one.npz", "--task", "classify"), exits.BAD_DATA, "shuffle its rows"),
        (("--name", "m", "--golden", "one.npz", "--task", "embed"), exits.BAD_SPEC, "no metrics"),
        (("--name", "m", "--golden", "one.npz", "--task", "regress"), exits.BAD_SPEC, "one number per row"),
    ],
)
def test_refusals_say_what_to_do_and_publish_nothing(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
):
    x, classes = foreign.rows_of(128)
    np.savez(tmp_path / "few.npz", x=x[:5])
    np.savez(tmp_path / "other.npz", x=x, probabilities=np.zeros((128, 3), np.float32))
    np.savez(tmp_path / "one.npz", x=x, targets=np.where(np.arange(128) < 64, classes, 0))
    result = invoke(tmp_path, foreign.save(foreign.classifier(), tmp_path), *arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert not list((tmp_path / "store").rglob("manifest*"))
    assert not (tmp_path / "store" / "models" / "m" / "versions").exists()


def test_targets_need_one_output_of_probabilities(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(128, 2)).astype(np.float32)
    np.savez(tmp_path / "golden.npz", X=x, targets=(x[:, 0] > 0.5).astype(int))
    file = foreign.save(foreign.trees(), tmp_path)
    both = invoke(tmp_path, file, "--name", "m", "--golden", "golden.npz", "--task", "classify")
    assert both.exit_code == exits.BAD_SPEC
    assert "keep it with --outputs" in both.output
    asked = ("--golden", "golden.npz", "--task", "classify", "--outputs", "probabilities")
    one = invoke(tmp_path, file, "--name", "m", *asked)
    assert one.exit_code == 0, one.output
    _, manifest = published(tmp_path, "m")
    assert manifest.evaluations[0].metrics["accuracy"] == 1.0
    assert [tensor.name for tensor in manifest.signature.outputs] == ["probabilities"]


def test_importing_needs_no_torch(tmp_path: Path):
    file = foreign.save(foreign.trees(), tmp_path)
    arguments = [str(file), "--name", "m", "--store", str(tmp_path / "store"), "--batches", "1"]
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError('torch')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from trainers.cli.imports import bring\n"
        f"bring({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "version 1" in done.stdout

"""Sessions inside a real gateway: artifacts that nobody may serve beside one that answers, and runs on more than one thread."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.objectstore.local import LocalStore
from tests.support import graphs, models
from tests.support.gateways import Gateway, running

RUN_BYTES_MAX = 64 << 20
ASK = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}


def external() -> onnx.ModelProto:
    return graphs.graph(graphs.add_weights(), tensors=[graphs.tensor([3], location="weights.bin", length="12")])


def greedy() -> onnx.ModelProto:
    return graphs.of_one("ConstantOfShape", shape=np.array([100_000, 100_000], np.int64))


def sparse() -> onnx.ModelProto:
    return graphs.graph(
        [helper.make_node("ReduceMax", ["w"], ["most"], keepdims=0), helper.make_node("Add", ["x", "most"], ["y"])],
        sparse=[graphs.sparse("w", 1 << 28)],
    )


BAD = {
    "external": (external(), "keeps tensors in other files"),
    "greedy": (greedy(), f"more memory than all runs may have (runtime.run_bytes_max is {RUN_BYTES_MAX})"),
    "sparse": (sparse(), "bytes (runtime.build_bytes_max)"),
    "foreign": (
        graphs.graph([helper.make_node("Own", ["x"], ["y"], domain="corp.own")], opsets={"": 20, "corp.own": 1}),
        "corp.own:Own(-1) is not a registered function/op",
    ),
    "newer": (
        graphs.graph([helper.make_node("Identity", ["x"], ["y"])], opsets={"": 99}),
        "models stamped with official released onnx opset versions",
    ),
}
GOOD = graphs.graph(graphs.add_weights(), {"w": graphs.WEIGHTS})


async def publish(store_path: Path) -> None:
    store = LocalStore(store_path)
    for name, model in {"good": GOOD, **{name: model for name, (model, _) in BAD.items()}}.items():
        data = model.SerializeToString()
        await models.publish_files(store, *models.manifest_of(name, graphs.SIGNATURE, {"fp32": data}))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "store").mkdir()
    asyncio.run(publish(folder / "store"))
    limit = {"STEELYARD_RUNTIME__RUN_BYTES_MAX": str(RUN_BYTES_MAX)}
    with running(folder / "store", folder, "--preload", "good", **limit) as started:
        yield started


def resident_mib(gateway: Gateway) -> int:
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024


def test_bad_artifacts_are_refused_with_a_sentence_and_the_good_one_answers(gateway: Gateway) -> None:
    before = resident_mib(gateway)
    for name, (_, sentence) in BAD.items():
        answer = gateway.post(f"/v2/models/{name}/infer", ASK)
        assert answer.status == 503
        assert answer.error.startswith(f"model '{name}': ")
        assert sentence in answer.error
        assert "cache" not in answer.error
        answer = gateway.post("/v2/models/good/infer", ASK)
        assert answer.json["outputs"][0]["data"] == [2, 4, 6, 5, 7, 9]
    assert resident_mib(gateway) < before + 40


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_gateway_runs_on_two_threads_and_bills_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    asyncio.run(models.publish_mlp(LocalStore(store), "heavy", features=512, hidden=2048, outputs=8))
    two = {"STEELYARD_RUNTIME__THREADS_PER_RUN": "2"}
    data = np.ones((64, 512), np.float32).ravel().tolist()
    ask = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [64, 512], "data": data}]}
    with running(store, tmp_path, "--preload", "heavy", **two) as gateway:
        answers = [gateway.post("/v2/models/heavy/infer", ask) for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    assert all(int(answer.headers["steelyard-cost-picousd"]) > 0 for answer in answers)


def test_more_threads_than_cpus_are_refused_before_listening(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    started = running(store, tmp_path, STEELYARD_RUNTIME__THREADS_PER_RUN="4096")
    with pytest.raises(AssertionError, match="threads_per_run is 4096, and this container has"):
        started.__enter__()

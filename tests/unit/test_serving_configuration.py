"""The trainer measures what the gateway serves: the same options, the same answers, and what it says of memory and optimizing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from gateway.contract import codec, prices
from gateway.contract.manifest import Manifest, Signature, Tensor, optimizer
from gateway.runtime import session as gateway_session
from gateway.runtime.session import Session
from tests.support import graphs, models
from tests.support.tinyjob import tiny_data
from trainers.evaluate import judge, resident, serving
from trainers.job import Candidate, Terms
from trainers.objectives import binary
from trainers.quantize.candidates import optimize, optimized_by

ENTRIES = (
    "session.intra_op.allow_spinning",
    "session.load_model_format",
    "session.use_device_allocator_for_initializers",
    "session.force_spinning_stop",
    "session.disable_prepacking",
    "session.set_denormal_as_zero",
)
ATTRIBUTES = (
    "enable_cpu_mem_arena",
    "enable_mem_pattern",
    "enable_mem_reuse",
    "execution_mode",
    "execution_order",
    "graph_optimization_level",
    "inter_op_num_threads",
    "intra_op_num_threads",
    "log_severity_level",
    "use_deterministic_compute",
    "use_per_session_threads",
)
OPEN_ENDED = Signature(
    inputs=(Tensor(name="features", datatype="FP32", shape=("batch", "length")),),
    outputs=(Tensor(name="scores", datatype="FP32", shape=("batch", "length")),),
)


def configuration(session: ort.InferenceSession) -> dict[str, object]:
    options = session.get_session_options()
    entries = {}
    for name in ENTRIES:
        try:
            entries[name] = options.get_session_config_entry(name)
        except RuntimeError:  # not set
            entries[name] = None
    return entries | {name: getattr(options, name) for name in ATTRIBUTES}


@pytest.mark.parametrize("saved_by", [optimizer(ort.__version__), ""])
@pytest.mark.parametrize("signature", [models.mlp_signature(4, 4), OPEN_ENDED], ids=["rows vary", "more varies"])
def test_trainer_and_gateway_open_sessions_alike(tmp_path: Path, signature: Signature, saved_by: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.graph_of([helper.make_node("Relu", ["features"], ["scores"])], signature, {}))
    served = Session(path, graphs.manifest(signature), optimized_by=saved_by)
    measured = serving.open_session(path, optimized_by=saved_by, only_rows_vary=signature is not OPEN_ENDED)
    assert configuration(served._session) == configuration(measured)
    features = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    (expected,) = measured.run(None, {"features": features})
    np.testing.assert_array_equal(served.run({"features": features})["scores"], expected)


def convolution() -> bytes:
    signature = Signature(
        inputs=(Tensor(name="image", datatype="FP32", shape=("batch", 3, 16, 16)),),
        outputs=(Tensor(name="map", datatype="FP32", shape=("batch", 16, 16, 16)),),
    )
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["raw"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["raw"], ["map"]),
    ]
    kernel = np.random.default_rng(0).normal(size=(16, 3, 3, 3)).astype(np.float32)
    return models.graph_of(nodes, signature, {"kernel": kernel})


@pytest.mark.parametrize(
    ("made", "by"),
    [
        (models.mlp_graph, optimizer(ort.__version__)),
        (models.tiny_graph, optimizer(ort.__version__)),
        (convolution, ""),
    ],
)
def test_only_graphs_that_higher_levels_leave_alone_are_called_optimized(made: Callable[[], bytes], by: str) -> None:
    graph = optimize(made(), "fp32")
    assert optimized_by(graph) == by
    assert all(not node.domain.endswith("nchwc") for node in onnx.load_from_string(graph).graph.node)


NUMBERS = np.random.default_rng(1).normal(size=(9, 32)).astype(np.float32)
MIXED = {
    "categories": np.array([["AA", "JFK"], ["?", ""]], object),
    "numbers": np.array([[1, 2, 3], [4, 5, np.nan]], np.float32),
}


@pytest.mark.parametrize(
    ("made", "inputs"), [(models.mlp_graph(), {"features": NUMBERS}), (models.tiny_graph(), MIXED)], ids=["mlp", "tiny"]
)
def test_an_optimized_graph_gives_the_same_answers_without_being_optimized_again(
    tmp_path: Path, made: bytes, inputs: dict[str, "np.ndarray[tuple[int, int], np.dtype[np.generic]]"]
) -> None:
    plain, ready = tmp_path / "plain.onnx", tmp_path / "ready.onnx"
    plain.write_bytes(made)
    ready.write_bytes(optimize(made, "fp32"))
    (expected,) = serving.open_session(plain).run(None, inputs)
    (got,) = serving.open_session(ready, optimized_by=optimizer(ort.__version__)).run(None, inputs)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_resident_memory_is_about_that_of_the_weights_and_not_what_runs_need() -> None:
    graph = models.mlp_graph(512, 8192, 512)
    assert len(graph) > 32 << 20
    measured = resident.measure(graph, {"features": np.ones((128, 512), np.float32)})
    assert 0.9 * len(graph) < measured < 1.5 * len(graph)
    few = resident.measure(models.mlp_graph(8, 8, 8), {"features": np.ones((128, 8), np.float32)})
    assert few < 1 << 20


def test_the_gateway_names_itself_as_the_trainer_does() -> None:
    assert optimizer(ort.__version__) == gateway_session.OPTIMIZED_BY


def test_the_manifest_says_what_each_variant_holds_and_who_optimized_it() -> None:
    data = tiny_data()
    candidates = [
        Candidate("fp32", "fp32", optimize(models.tiny_graph(), "fp32"), optimizer(ort.__version__)),
        Candidate("plain", "plain", models.tiny_graph()),
    ]
    verdict = judge.judge(candidates, data, Terms(binary()), lambda *_: None, prices.load())
    by_id = {variant.id: variant for variant in verdict.variants}
    assert by_id["fp32"].optimized_by == optimizer(ort.__version__)
    assert by_id["plain"].optimized_by == ""
    for candidate in candidates:
        measured = by_id[candidate.id].resident_bytes
        assert measured is not None
        assert len(candidate.graph) <= measured < 4 << 20


def test_a_manifest_of_before_keeps_its_bytes() -> None:
    manifest = graphs.manifest()
    assert b"optimized_by" not in codec.encode(manifest)
    assert codec.decode(codec.encode(manifest), Manifest) == manifest

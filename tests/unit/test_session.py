"""Which variant a host runs, what a session refuses to be built from, and what it says when it runs."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from gateway.contract.manifest import Gate, Manifest, Signature, Tensor
from gateway.errors import InvalidInput, UnsupportedModel
from gateway.runtime.session import OPTIMIZED_BY, Session, cpu_flags, pick_variant
from tests.support import graphs, models


def manifest_of(*variants: str) -> Manifest:
    graphs = {name: models.tiny_graph(number) for number, name in enumerate(variants)}
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, graphs)
    return manifest


def requiring(manifest: Manifest, **requires: tuple[str, ...]) -> Manifest:
    return msgspec.structs.replace(
        manifest,
        variants=tuple(
            msgspec.structs.replace(variant, requires=requires.get(variant.id, ())) for variant in manifest.variants
        ),
    )


def test_the_variant_the_manifest_serves_is_preferred() -> None:
    manifest = msgspec.structs.replace(manifest_of("fp32", "int8"), serve="int8")
    assert pick_variant(manifest, frozenset()).id == "int8"


def test_a_host_without_the_flags_takes_another_variant() -> None:
    manifest = requiring(msgspec.structs.replace(manifest_of("fp32", "int8"), serve="int8"), int8=("avx512_vnni",))
    assert pick_variant(manifest, frozenset({"avx512_vnni"})).id == "int8"
    assert pick_variant(manifest, frozenset({"avx2"})).id == "fp32"


def test_a_variant_that_failed_a_gate_is_never_the_fallback() -> None:
    manifest = requiring(msgspec.structs.replace(manifest_of("int8", "fp32"), serve="fp32"), fp32=("avx2",))
    assert pick_variant(manifest, frozenset()).id == "int8"
    failed = msgspec.structs.replace(manifest, gates=(Gate("drift", "int8", False, 1.0, 0.1),))
    with pytest.raises(UnsupportedModel, match=r"no variant runs on this .* CPU: fp32 needs avx2"):
        pick_variant(failed, frozenset())


def test_cpu_flags_are_read_by_flag_not_by_family(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : Xeon\nflags\t\t: fpu avx2 avx512_vnni\n\nflags : fpu\n")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "avx512_vnni"}
    assert cpu_flags(tmp_path / "none") == frozenset()


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x80\x04pickle", b"\x00" * 1000])
def test_bytes_that_are_no_graph_are_refused_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match=r"'model\.onnx'"):
        Session(path, manifest_of("fp32"))


def test_a_graph_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.mlp_graph())
    with pytest.raises(UnsupportedModel, match=r"the graph's inputs are .*features.* declares .*categories"):
        Session(path, manifest_of("fp32"))


@pytest.mark.parametrize("shape", [("batch", 4), ("batch", 3, 1)])
def test_a_graph_of_another_size_than_its_manifest_says_is_refused(
    tmp_path: Path, shape: tuple[str | int, ...]
) -> None:
    path = graphs.saved(graphs.graph(graphs.add_weights(), {"w": graphs.WEIGHTS}), tmp_path)
    signature = Signature(inputs=(Tensor(name="x", datatype="FP32", shape=shape),), outputs=graphs.SIGNATURE.outputs)
    with pytest.raises(UnsupportedModel, match="publish it again"):
        Session(path, graphs.manifest(signature))


async def test_the_loop_goes_on_while_a_large_model_is_built(tmp_path: Path) -> None:
    """onnxruntime releases the interpreter's lock for the build: 100 MB of weights."""
    features, hidden = 512, 25_000
    nodes = [
        helper.make_node("Gemm", ["features", "w1"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2"], ["scores"]),
    ]
    constants = {
        "w1": np.zeros((features, hidden), np.float32),
        "w2": np.zeros((hidden, features), np.float32),
    }
    path = tmp_path / "large.onnx"
    path.write_bytes(models.graph_of(nodes, models.mlp_signature(features, features), constants))
    manifest = graphs.manifest(models.mlp_signature(features, features))
    ticks = 0
    with ThreadPoolExecutor(1) as builder:
        building = asyncio.get_running_loop().run_in_executor(builder, Session, path, manifest)
        while not building.done():
            ticks += 1
            await asyncio.sleep(0)
        session = await building
    assert session.warm_up() is not None
    assert ticks > 100  # thousands; a build that held the lock would leave a handful


def optimized(graph: bytes, folder: Path) -> Path:
    """What the trainer saves: onnxruntime's own version of it."""
    path = folder / "optimized.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return path


@pytest.mark.parametrize("optimized_by", [OPTIMIZED_BY, "onnxruntime 1.0.0 extended", ""])
def test_a_graph_optimized_by_this_version_is_taken_as_it_is_and_any_other_is_optimized(
    tmp_path: Path, optimized_by: str
) -> None:
    manifest = graphs.manifest(models.mlp_signature())
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(models.mlp_graph())
    ready = Session(optimized(models.mlp_graph(), tmp_path), manifest, optimized_by=optimized_by)
    level = ready._session.get_session_options().graph_optimization_level
    none, everything = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert level == (none if optimized_by == OPTIMIZED_BY else everything)
    features = np.random.default_rng(0).normal(size=(7, 32)).astype(np.float32)
    expected = Session(plain, manifest).run({"features": features})["scores"]
    np.testing.assert_allclose(ready.run({"features": features})["scores"], expected, rtol=0, atol=1e-6)


def test_memory_is_planned_only_where_nothing_but_the_rows_varies(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["features"], ["scores"])]
    open_ended = Tensor(name="features", datatype="FP32", shape=("batch", "length"))
    free = Signature(inputs=(open_ended,), outputs=(msgspec.structs.replace(open_ended, name="scores"),))
    path = tmp_path / "model.onnx"
    for signature, is_planned in ((models.mlp_signature(4, 4), True), (free, False)):
        path.write_bytes(models.graph_of(nodes, signature, {}))
        session = Session(path, graphs.manifest(signature))
        assert session._session.get_session_options().enable_mem_pattern is is_planned


@pytest.mark.parametrize(
    ("nodes", "datatype", "value", "sentence"),
    [
        ([helper.make_node("Cast", ["x"], ["y"], to=1)], "BYTES", "secret-4242", "its operator Cast failed"),
        (
            [helper.make_node("Gather", ["w", "x"], ["y"])],
            "INT64",
            4242,
            "its operator Gather failed: indices element out",
        ),
    ],
)
def test_a_failed_run_names_the_operator_and_no_value(
    tmp_path: Path, nodes: list[object], datatype: str, value: object, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    signature = Signature(
        inputs=(Tensor(name="x", datatype=datatype, shape=("batch", 1)),),
        outputs=(Tensor(name="y", datatype="FP32", shape=("batch", 1)),),
    )
    path = tmp_path / "model.onnx"
    constants = {"w": np.zeros(3, np.float32)} if datatype == "INT64" else {}
    path.write_bytes(models.graph_of(nodes, signature, constants))
    session = Session(path, graphs.manifest(signature))
    kind = object if datatype == "BYTES" else np.int64
    with pytest.raises(InvalidInput, match=sentence) as refusal:
        session.run({"x": np.array([[value]], kind)})
    assert "4242" not in str(refusal.value)
    assert "onnxruntime_src" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_warm_up_runs_strings_and_numbers_and_costs_something(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.tiny_graph())
    result = Session(path, manifest_of("fp32")).warm_up(3)
    assert result is not None
    assert result.outputs["probability"].shape == (3, 1)
    assert result.cpu_ns > 0

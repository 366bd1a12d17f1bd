"""What an import rewrites in a graph: constants baked in, axes moved, names, dropped outputs, opened rows; the answers stay."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support import foreign
from tests.support.imports import answers, declared, proven
from trainers.errors import ModelInvalid, SpecError
from trainers.importing import asked
from trainers.importing.asked import Changes

STATEFUL = Changes(constants={"rate": 8000}, batch_axes={"state": 1, "next": 1})


def test_constants_and_axes_leave_the_answers_alone(tmp_path: Path):
    found = proven(foreign.stateful(), tmp_path, STATEFUL)
    shapes = {tensor.name: tensor.shape for tensor in (*found.signature.inputs, *found.signature.outputs)}
    assert shapes == {
        "chunk": ("batch", 4),
        "state": ("batch", 2, 4),
        "score": ("batch", 1),
        "next": ("batch", 2, 4),
    }
    rng = np.random.default_rng(0)
    chunk, state = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(2, 3, 4)).astype(np.float32)
    got = answers(found, chunk=chunk, state=state.transpose(1, 0, 2))
    assert np.allclose(got["next"], (state + chunk).transpose(1, 0, 2))
    assert np.allclose(got["score"][:, 0], (state + chunk).sum(axis=(0, 2)), atol=1e-5)


def test_another_constant_takes_the_other_branch(tmp_path: Path):
    found = proven(foreign.stateful(), tmp_path, Changes(constants={"rate": 16000}, batch_axes=STATEFUL.batch_axes))
    ones, zeros = np.ones((1, 4), np.float32), np.zeros((1, 2, 4), np.float32)
    assert answers(found, chunk=ones, state=zeros)["next"].tolist() == [[[2.0] * 4] * 2]


def test_branches_that_a_constant_decides_are_folded(tmp_path: Path):
    found = declared(foreign.stateful(), tmp_path, STATEFUL)
    assert "If" not in {node.op_type for node in found.model.graph.node}


@pytest.mark.parametrize("given", ["16000.5", '"fast"', "[8000]", "true", "1e30"])
def test_a_constant_of_another_type_or_shape_is_refused(given: str, tmp_path: Path):
    changes = Changes(constants=asked.constants([f"rate={given}"]), batch_axes=STATEFUL.batch_axes)
    with pytest.raises(SpecError, match="--constant rate"):
        declared(foreign.stateful(), tmp_path, changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(constants={"nothing": 1}), "--constant 'nothing' is not in the file; it has: x"),
        (Changes(batch_axes={"x": 2}), "has 2 axes"),
        (Changes(outputs=("nothing",)), "it has: probabilities"),
        (Changes(renames={"x": "hidden"}), "uses 'hidden' already"),
        (Changes(renames={"nothing": "y"}), "--rename 'nothing'"),
        (Changes(shapes={"nothing": ("batch",)}), "--shape 'nothing'"),
    ],
)
def test_changes_of_what_is_not_there_are_refused(changes: Changes, message: str, tmp_path: Path):
    with pytest.raises(SpecError, match=message):
        declared(foreign.classifier(), tmp_path, changes)


def test_names_change_everywhere(tmp_path: Path):
    renames = {"chunk": "samples", "next": "state_after"}
    changes = Changes(constants={"rate": 8000}, batch_axes=STATEFUL.batch_axes, renames=renames)
    found = proven(foreign.stateful(), tmp_path, changes)
    assert [tensor.name for tensor in found.signature.inputs] == ["samples", "state"]
    assert [tensor.name for tensor in found.signature.outputs] == ["score", "state_after"]


def test_dropped_outputs_take_along_what_only_they_needed(tmp_path: Path):
    nodes = [helper.make_node("Neg", ["a"], ["na"]), helper.make_node("Add", ["b", "w"], ["nb"])]
    inputs = [foreign.value("a", ["N", 2]), foreign.value("b", ["N", 2])]
    outputs = [foreign.value("na", ["N", 2]), foreign.value("nb", ["N", 2])]
    made = foreign.model(nodes, inputs, outputs, {"w": np.ones(2, np.float32)})
    found = proven(made, tmp_path, Changes(outputs=("na",)))
    assert [tensor.name for tensor in found.signature.inputs] == ["a"]
    assert not found.model.graph.initializer
    assert [node.op_type for node in found.model.graph.node] == ["Neg"]


def test_outputs_keep_what_only_a_branch_needs(tmp_path: Path):
    changes = Changes(batch_axes={"state": 1}, outputs=("score",), constants={"rate": 8000})
    found = proven(foreign.stateful(), tmp_path, changes)
    assert [tensor.name for tensor in found.signature.inputs] == ["chunk", "state"]


def test_frozen_rows_that_are_only_metadata_can_be_opened(tmp_path: Path):
    found = proven(foreign.classifier(1), tmp_path, Changes(dynamic_batch=True))
    x, classes = foreign.rows_of(9)
    assert (answers(found, x=x)["probabilities"].argmax(axis=1) == classes).mean() > 0.8


def reshaping(shape: list[int]) -> onnx.ModelProto:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    return foreign.model(
        nodes, [foreign.value("x", [1, 4])], [foreign.value("y", [1, 2, 2])], {"shape": np.array(shape)}
    )


def test_frozen_rows_that_the_graph_counts_on_cannot(tmp_path: Path):
    with pytest.raises(ModelInvalid):
        proven(reshaping([1, 2, 2]), tmp_path, Changes(dynamic_batch=True))
    assert proven(reshaping([-1, 2, 2]), tmp_path, Changes(dynamic_batch=True))


def test_opening_the_rows_of_a_graph_that_mixes_them_is_refused(tmp_path: Path):
    nodes = [
        helper.make_node("ReduceMax", ["x", "axis"], ["largest"]),
        helper.make_node("Div", ["x", "largest"], ["y"]),
    ]
    ends = [foreign.value("x", [1, 4])], [foreign.value("y", [1, 4])]
    made = foreign.model(nodes, *ends, {"axis": np.array([0])})
    with pytest.raises(ModelInvalid, match="--dynamic-batch: output 'y'"):
        proven(made, tmp_path, Changes(dynamic_batch=True))


def test_a_float_constant_may_be_written_as_a_whole_number(tmp_path: Path):
    nodes = [helper.make_node("Mul", ["x", "gain"], ["y"])]
    inputs = [foreign.value("x", ["N", 2]), foreign.value("gain", [])]
    made = foreign.model(nodes, inputs, [foreign.value("y", ["N", 2])])
    found = proven(made, tmp_path, Changes(constants=asked.constants(["gain=3"])))
    assert answers(found, x=np.ones((1, 2), np.float32))["y"].tolist() == [[3, 3]]


def test_initializers_are_no_constants_to_bake_in(tmp_path: Path):
    made = foreign.classifier()
    assert numpy_helper.to_array(made.graph.initializer[0]).shape == (32, 64)
    with pytest.raises(SpecError, match="--constant 'first'"):
        declared(made, tmp_path, Changes(constants={"first": 1}))

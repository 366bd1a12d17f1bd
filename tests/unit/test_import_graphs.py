"""ONNX files that somebody else made: what is refused and how to help it, and the signature that is declared.

What an import changes in them: `test_import_changes.py`.
"""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gateway.contract.manifest import Column, Tensor
from tests.support import foreign
from tests.support.imports import NO_CHANGES, answers, declared, passed_on, proven
from trainers.errors import ModelInvalid, SpecError
from trainers.importing import reading
from trainers.importing.asked import Changes, Words

# What is no model


@pytest.mark.parametrize("data", [b"", b"\x80\x04\x95pickle", b"not onnx at all", b"\x08\x0a"])
def test_a_file_that_is_no_onnx_is_refused(data: bytes, tmp_path: Path):
    (tmp_path / "model.pkl").write_bytes(data)
    with pytest.raises(ModelInvalid, match="not an ONNX file"):
        reading.read(tmp_path / "model.pkl")


def test_a_missing_file_is_the_callers_mistake(tmp_path: Path):
    with pytest.raises(SpecError, match="No such file"):
        reading.read(tmp_path / "absent.onnx")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(reading.BYTES_MAX + 1)
    with pytest.raises(ModelInvalid, match="at most 1,073,741,824"):
        reading.read(tmp_path / "large.onnx")


def test_custom_operators_are_refused_wherever_they_are(tmp_path: Path):
    with pytest.raises(ModelInvalid, match=r"custom operators.*acme\.Identity"):
        declared(passed_on(domain="acme"), tmp_path)
    made = foreign.stateful()
    made.opset_import.append(helper.make_opsetid("acme", 1))
    made.graph.node[1].attribute[0].g.node[0].domain = "acme"
    with pytest.raises(ModelInvalid, match=r"acme\.Mul"):
        declared(made, tmp_path)


def test_an_operator_that_onnxruntime_lacks_is_refused(tmp_path: Path):
    with pytest.raises(ModelInvalid):
        proven(passed_on(op_type="Nonsense"), tmp_path, Changes())


def test_newer_formats_than_are_known_are_refused(tmp_path: Path):
    made = foreign.classifier()
    made.ir_version = onnx.IR_VERSION + 1
    with pytest.raises(ModelInvalid, match="IR version"):
        declared(made, tmp_path)
    made = foreign.classifier()
    made.opset_import[0].version = onnx.defs.onnx_opset_version() + 1
    with pytest.raises(ModelInvalid, match="opset"):
        declared(made, tmp_path)


def test_an_invalid_graph_is_refused(tmp_path: Path):
    made = foreign.classifier()
    made.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ModelInvalid, match="not valid ONNX"):
        declared(made, tmp_path)


def test_functions_of_its_own_are_inlined(tmp_path: Path):
    made = passed_on(domain="acme", op_type="Twice")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    made.functions.append(helper.make_function("acme", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    found = declared(made, tmp_path)
    assert answers(found, x=np.ones((3, 2), np.float32))["y"].tolist() == [[2, 2]] * 3


# External data


def kept_outside(folder: Path, location: str = "weights.bin") -> onnx.ModelProto:
    made = foreign.classifier()
    tensor = made.graph.initializer[0]
    data = tensor.raw_data
    (folder / "weights.bin").write_bytes(data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    return made


def test_tensors_in_a_file_beside_are_inlined(tmp_path: Path):
    x, _ = foreign.rows_of(5)
    whole = declared(foreign.classifier(), tmp_path)
    outside = declared(kept_outside(tmp_path), tmp_path)
    assert (answers(whole, x=x)["probabilities"] == answers(outside, x=x)["probabilities"]).all()


def test_what_is_in_the_file_beside_is_a_part_of_the_identity(tmp_path: Path):
    path = foreign.save(kept_outside(tmp_path), tmp_path)
    before = reading.read(path).sha256
    (tmp_path / "weights.bin").write_bytes(bytes(len((tmp_path / "weights.bin").read_bytes())))
    assert reading.read(path).sha256 != before


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "sub/weights.bin", "absent.bin", ".."])
def test_tensors_anywhere_else_are_refused(location: str, tmp_path: Path):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    with pytest.raises(ModelInvalid, match=re.escape(f"'{location}'")):
        declared(kept_outside(folder, location), folder)


def test_a_link_beside_the_model_is_not_followed(tmp_path: Path):
    made = kept_outside(tmp_path, "link.bin")
    (tmp_path / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelInvalid, match="only a file beside"):
        declared(made, tmp_path)


def test_external_data_counts_as_a_part_of_the_file(tmp_path: Path):
    path = foreign.save(kept_outside(tmp_path), tmp_path)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(reading.BYTES_MAX)
    with pytest.raises(ModelInvalid, match="with its data"):
        reading.read(path)


def test_external_data_that_is_too_short_is_refused(tmp_path: Path):
    path = foreign.save(kept_outside(tmp_path), tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ModelInvalid):
        reading.read(path)


# The signature


def test_open_dimensions_get_the_names_of_the_contract(tmp_path: Path):
    found = declared(foreign.classifier("N"), tmp_path).signature
    assert found.inputs == (Tensor(name="x", datatype="FP32", shape=("batch", 32)),)
    assert found.outputs[0].shape == ("batch", 3)


def test_dimensions_without_a_name_are_named_after_their_tensor(tmp_path: Path):
    ends = [foreign.value("x", [None, None])], [foreign.value("y", ["N", "N"])]
    made = foreign.model([helper.make_node("Identity", ["x"], ["y"])], *ends)
    found = declared(made, tmp_path).signature
    assert found.inputs[0].shape == ("batch", "x_1")
    assert found.outputs[0].shape == ("batch", "N")


def test_constants_among_the_inputs_need_not_be_sent(tmp_path: Path):
    made = foreign.classifier()
    made.graph.input.append(foreign.value("first", [32, 64]))
    assert [tensor.name for tensor in declared(made, tmp_path).signature.inputs] == ["x"]


def test_a_sequence_of_maps_says_how_to_convert_without(tmp_path: Path):
    made = foreign.trees()
    node = helper.make_node("ZipMap", ["probabilities"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    made.graph.node.append(node)
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.output[1].CopyFrom(helper.make_value_info("maps", helper.make_sequence_type_proto(kind)))
    with pytest.raises(ModelInvalid, match=r"options=\{'zipmap': False\}"):
        declared(made, tmp_path)


def test_element_types_that_the_contract_lacks_are_refused(tmp_path: Path):
    with pytest.raises(ModelInvalid, match="'x' is BFLOAT16; served are BOOL"):
        declared(passed_on(TensorProto.BFLOAT16), tmp_path)


def test_a_value_without_rows_says_which_option_helps(tmp_path: Path):
    changes = Changes(batch_axes={"state": 1, "next": 1})
    with pytest.raises(ModelInvalid, match="--constant rate=VALUE"):
        declared(foreign.stateful(), tmp_path, changes)


def test_rows_on_another_axis_say_which_option_helps(tmp_path: Path):
    with pytest.raises(ModelInvalid, match="--batch-axis state=1"):
        declared(foreign.stateful(), tmp_path, Changes(constants={"rate": 8000}))


def test_frozen_rows_say_how_to_export_them_open(tmp_path: Path):
    with pytest.raises(ModelInvalid, match=r"dynamic_shapes.*--dynamic-batch"):
        declared(foreign.classifier(1), tmp_path)


def test_an_output_that_is_declared_for_one_row_is_tried_with_more(tmp_path: Path):
    made = foreign.classifier()
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert proven(made, tmp_path, NO_CHANGES).signature.outputs[0].shape == ("batch", 3)
    nodes = [helper.make_node("ReduceMax", ["x", "axis"], ["y"], keepdims=0)]
    ends = [foreign.value("x", ["N", 4])], [foreign.value("y", [4])]
    with pytest.raises(ModelInvalid, match=r"'y' has shape \[4\] for 1 rows"):
        proven(foreign.model(nodes, *ends, {"axis": np.array([0])}), tmp_path, NO_CHANGES)


def test_columns_name_the_last_axis(tmp_path: Path):
    words = Words(columns={"X": ("age", "weight")}, nullable=frozenset({"age"}), labels=("low", "high", "odd"))
    found = declared(foreign.trees(), tmp_path, words=words).signature.inputs[0]
    assert found.columns == (
        Column(name="age", datatype="number", nullable=True),
        Column(name="weight", datatype="number"),
    )


def test_a_star_makes_columns_of_the_inputs_of_one_value(tmp_path: Path):
    nodes = [helper.make_node("Add", ["age", "weight"], ["sum"])]
    ends = [foreign.value("age", [None, 1]), foreign.value("weight", [None, 1])], [foreign.value("sum", [None, 1])]
    found = declared(foreign.model(nodes, *ends), tmp_path, words=Words(columns={"*": ()})).signature
    assert [column.name for tensor in found.inputs for column in tensor.columns] == ["age", "weight"]
    assert not found.outputs[0].columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (Words(columns={"X": ("a", "b", "c")}), "3 names"),
        (Words(columns={"Z": ("a",)}), "'Z' is no tensor"),
        (Words(columns={"X": ("a", "b")}, nullable=frozenset({"c"})), "--nullable 'c'"),
        (Words(labels=("a", "b")), "--labels has 2 names"),
    ],
)
def test_words_that_fit_no_tensor_are_refused(words: Words, message: str, tmp_path: Path):
    with pytest.raises(SpecError, match=message):
        declared(foreign.trees(), tmp_path, words=words)


def test_only_floats_can_be_missing(tmp_path: Path):
    words = Words(columns={"x": ("a", "b")}, nullable=frozenset({"a"}))
    with pytest.raises(SpecError, match="only floats can be missing"):
        declared(passed_on(TensorProto.INT64), tmp_path, words=words)


def test_a_shape_declares_what_is_open_and_contradicts_nothing(tmp_path: Path):
    ends = [foreign.value("x", [None, None])], [foreign.value("y", [None, None])]
    made = foreign.model([helper.make_node("Identity", ["x"], ["y"])], *ends)
    shapes = {"x": ("batch", 8), "y": ("batch", "length")}
    assert declared(made, tmp_path, Changes(shapes=shapes)).signature.inputs[0].shape == ("batch", 8)
    with pytest.raises(SpecError, match="contradicts"):
        declared(foreign.classifier(), tmp_path, Changes(shapes={"x": ("batch", 31)}))

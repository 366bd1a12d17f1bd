"""What a manifest says of texts and of labels, and what it may not say."""

from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.contract.manifest import Column, Tensor, TextInput
from gateway.http import classification
from tests.support import texts as made


def test_text_input_is_refused_where_it_contradicts() -> None:
    manifest, _ = made.manifest()

    def change(**changes: Any) -> None:
        msgspec.structs.replace(manifest, text=msgspec.structs.replace(made.TEXT, **changes))

    change()
    for changes, message in (
        ({"file": "other.json"}, "'other.json', which is not among the files of role 'tokenizer'"),
        ({"file": "fp32.onnx"}, "not among the files of role"),
        ({"ids": "ids"}, "'ids', which is not among the inputs"),
        ({"mask": "input_ids"}, "'input_ids' appears twice"),
        ({"mask": ""}, "'attention_mask' has shape .* only the rows may vary"),
        ({"type_ids": "types"}, "'types', which is not among the inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            change(**changes)
    with pytest.raises(msgspec.ValidationError, match="length_max"):
        msgspec.convert(msgspec.to_builtins(made.TEXT) | {"length_max": 0}, TextInput)


@pytest.mark.parametrize(
    ("datatype", "shape", "message"),
    [
        ("FP32", ("batch", "tokens"), "is FP32"),
        ("INT64", ("batch", 16), "tokens are INT64 or INT32"),
        ("INT64", ("batch", "other"), "differ in shape"),
        ("INT64", ("batch", "tokens", 2), "tokens are INT64 or INT32"),
    ],
)
def test_a_signature_that_takes_no_tokens_is_refused(datatype: Any, shape: Any, message: str) -> None:
    first = msgspec.structs.replace(made.SIGNATURE.inputs[0], datatype=datatype, shape=shape)
    signature = msgspec.structs.replace(made.SIGNATURE, inputs=(first, made.SIGNATURE.inputs[1]))
    with pytest.raises(ValueError, match=message):
        made.manifest(signature=signature)


def test_a_column_named_as_the_text_and_an_output_for_each_token_are_refused() -> None:
    signature, _ = made.with_number()
    with pytest.raises(ValueError, match="'age' appears twice"):
        made.manifest(signature=signature, text=msgspec.structs.replace(made.TEXT, column="age"))
    hidden = msgspec.structs.replace(made.SIGNATURE.outputs[0], shape=("batch", "tokens"))
    with pytest.raises(ValueError, match=r"'embedding' has shape .* only the rows may vary"):
        made.manifest(signature=msgspec.structs.replace(made.SIGNATURE, outputs=(hidden,)))


@pytest.mark.parametrize("names", [("embedding",), ("score",)])
def test_labels_are_named_where_they_are_one_for_each_element(names: tuple[str, ...]) -> None:
    outputs = tuple(Tensor(name, "FP32", ("batch", 2)) for name in names)
    manifest, _ = made.manifest(
        signature=msgspec.structs.replace(made.SIGNATURE, outputs=outputs), labels=("ham", "spam")
    )
    tensor = classification.labelled(manifest)
    if names == ("score",):
        assert tensor is None, "its own name is taken"
        return
    assert tensor is not None
    values = {"embedding": np.array([[0.25, 0.75], [0.5, 0.5], [np.nan, 0.1]], np.float32)}
    found = classification.winners(tensor, values, manifest.labels)
    assert [(one["label"], float(one["score"])) for one in found[:2]] == [("spam", 0.75), ("ham", 0.5)]
    assert found[2]["label"] is None


def test_other_labels_name_nothing() -> None:
    assert classification.labelled(made.manifest(labels=())[0]) is None
    assert classification.labelled(made.manifest(labels=("a", "b"))[0]) is None
    columns = tuple(Column(name, "number") for name in ("a", "b"))
    named = msgspec.structs.replace(made.SIGNATURE, outputs=(Tensor("scores", "FP32", ("batch", 2), columns),))
    assert classification.labelled(made.manifest(labels=("a", "b"), signature=named)[0]) is None

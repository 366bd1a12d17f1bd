"""Whether one version can stand in for another, and that both answer as they would be served."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.contract.manifest import Column, File, Manifest, Signature, Tensor, TextInput
from tests.support import promotions
from tests.support.models import TINY_SIGNATURE, manifest_of
from trainers.promotion import sides
from trainers.promotion.sides import Side

Change = Callable[[Signature], Signature]


def manifest(signature: Signature = TINY_SIGNATURE, **fields: object) -> Manifest:
    made, _ = manifest_of("tiny", signature, {"fp32": b"graph"})
    return msgspec.structs.replace(made, **fields)


def with_input(number: int, **fields: object) -> Signature:
    inputs = list(TINY_SIGNATURE.inputs)
    inputs[number] = msgspec.structs.replace(inputs[number], **fields)
    return Signature(tuple(inputs), TINY_SIGNATURE.outputs)


def with_column(name: str, **fields: object) -> Signature:
    numbers = TINY_SIGNATURE.inputs[1]
    columns = tuple(msgspec.structs.replace(c, **fields) if c.name == name else c for c in numbers.columns)
    return with_input(1, columns=columns)


def with_output(*outputs: Tensor) -> Signature:
    return Signature(TINY_SIGNATURE.inputs, outputs)


@pytest.mark.parametrize(
    "after",
    [
        TINY_SIGNATURE,
        with_input(
            0, columns=tuple(msgspec.structs.replace(c, known=("XX",)) for c in TINY_SIGNATURE.inputs[0].columns)
        ),
        with_output(*TINY_SIGNATURE.outputs, Tensor("extra", "FP32", ("batch", 1))),
        with_column("distance", maximum=9000),
        with_column("distance", nullable=True),
        with_column("hour", maximum=None),
    ],
    ids=["same", "categories", "more outputs", "wider", "nullable", "unbounded"],
)
def test_callers_do_not_notice(after: Signature):
    assert sides.incompatible(manifest(), manifest(after)) == []


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (
            Signature(TINY_SIGNATURE.inputs[:1], TINY_SIGNATURE.outputs),
            "the inputs were categories, numbers, are categories",
        ),
        (Signature(TINY_SIGNATURE.inputs[::-1], TINY_SIGNATURE.outputs), "are numbers, categories"),
        (with_input(1, datatype="FP64"), "input 'numbers' was FP32 [batch, 3], is FP64 [batch, 3]"),
        (with_input(1, columns=(), shape=("batch", 4)), "is FP32 [batch, 4]"),
        (with_input(1, columns=()), "input 'numbers' has other columns"),
        (with_column("distance", maximum=4000), "input column 'distance' accepts less"),
        (with_column("wind", minimum=0.0), "input column 'wind' accepts less"),
        (with_column("wind", nullable=False), "input column 'wind' accepts less"),
        (with_column("hour", datatype="number"), "input column 'hour' accepts less"),
        (with_output(Tensor("other", "FP32", ("batch", 1))), "output 'probability' is gone"),
        (with_output(Tensor("probability", "FP32", ("batch", 2))), "output 'probability' was FP32 [batch, 1]"),
        (
            with_output(Tensor("probability", "FP32", ("batch", 1), (Column("x", "number"),))),
            "output 'probability' has other columns",
        ),
    ],
)
def test_what_callers_would_notice_is_named(after: Signature, says: str):
    assert says in "; ".join(sides.incompatible(manifest(), manifest(after)))


def test_labels_and_the_task_keep_their_meaning():
    before = manifest(labels=("no", "yes"))
    assert sides.incompatible(before, manifest(labels=("yes", "no"))) == ["the labels, or their order, changed"]
    assert sides.incompatible(manifest(), manifest(labels=("no", "yes"))) == []
    assert sides.incompatible(manifest(), manifest(task="regress")) == ["the task was classify, is regress"]


def test_text_must_become_the_same_tokens():
    signature = Signature(
        (Tensor("ids", "INT64", ("batch", "tokens")), Tensor("mask", "INT64", ("batch", "tokens"))),
        (Tensor("answer", "FP32", ("batch", 1)),),
    )

    def texts(digest: str, length_max: int = 64) -> Manifest:
        made = manifest(signature)
        file = File("tokenizer.json", digest, 10, "application/json", "tokenizer")
        text = TextInput("text", "tokenizer.json", length_max, "ids", "mask")
        return msgspec.structs.replace(made, files=(*made.files, file), text=text)

    assert sides.incompatible(texts("ab" * 32), texts("ab" * 32)) == []
    for other in (texts("cd" * 32), texts("ab" * 32, 32), manifest(signature)):
        assert sides.incompatible(texts("ab" * 32), other) == ["text becomes other tokens"]


@pytest.mark.parametrize("max_batch", [1, 7, 128])
def test_answers_are_in_the_order_of_the_rows_whatever_the_batch(tmp_path: Path, max_batch: int):
    made = promotions.artifact(tmp_path, promotions.made(), promotions.graph(0.25), run_id="r")
    variant = msgspec.structs.replace(made.variants[0], max_batch=max_batch)
    side = Side(msgspec.structs.replace(made, variants=(variant,)), tmp_path)
    rows = promotions.split(150, 1)
    expected = 1 / (1 + np.exp(-rows.inputs["features"] @ (promotions.TRUTH + 0.25)))
    found = sides.answers(side, rows, "", "answer")
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)

"""A manifest that contradicts itself is refused with a sentence, whether it is read or written."""

from typing import Any

import msgspec
import pytest

from gateway.contract import codec
from gateway.contract.manifest import Manifest
from gateway.errors import ManifestInvalid
from tests.support import models


@pytest.fixture
def tree() -> dict[str, Any]:
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.tiny_graph()})
    built: dict[str, Any] = msgspec.to_builtins(manifest)
    return built


def test_the_tree_is_valid_before_it_is_broken(tree: dict[str, Any]) -> None:
    assert codec.decode(msgspec.json.encode(tree), Manifest).model == "tiny"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", "Tiny", r"\$\.model"),
        ("model", "../x", r"\$\.model"),
        ("serve", "int4", "'serve' names variant 'int4'"),
        ("files.0.name", "../model.onnx", r"\$\.files\[0\]\.name"),
        ("files.0.name", "a/b.onnx", r"\$\.files\[0\]\.name"),
        ("files.0.sha256", "abc", r"\$\.files\[0\]\.sha256"),
        ("files.0.size", -1, r"\$\.files\[0\]\.size"),
        ("variants.0.file", "other.onnx", "needs 'other.onnx', which is not among the model files"),
        ("variants.0.max_batch", 0, r"max_batch"),
        ("signature.inputs.0.shape", ["batch", 3], "has 2 columns and shape"),
        ("signature.inputs.0.shape", [4, 2], "first dimension must be 'batch'"),
        ("signature.inputs.1.name", "categories", "'categories' appears twice"),
        ("signature.outputs", [], "no outputs"),
        ("signature.inputs.0.datatype", "FLOAT", "datatype"),
        ("training_cost.cost_picousd", -5, "cost_picousd"),
    ],
)
def test_a_contradiction_is_named(tree: dict[str, Any], path: str, value: object, message: str) -> None:
    *parents, leaf = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = tree
    for parent in parents:
        target = target[parent]
    target[leaf] = value
    with pytest.raises(ManifestInvalid, match=message):
        codec.decode(msgspec.json.encode(tree), Manifest)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"schema_version": "1"}'])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        codec.decode(data, Manifest)

"""Graphs on their way into a store, as `steelyard models import` takes them, up to the proof."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support import foreign
from trainers.importing import proving, reading
from trainers.importing.asked import Changes, Words
from trainers.importing.bringing import Import, declare
from trainers.importing.declaring import Declared

NO_CHANGES, NO_WORDS = Changes(), Words()


def declared(made: onnx.ModelProto, folder: Path, changes: Changes = NO_CHANGES, words: Words = NO_WORDS) -> Declared:
    asking = Import(
        name="m", file=foreign.save(made, folder), folder=folder, actor="test", changes=changes, words=words
    )
    return declare(asking, reading.read(asking.file))


def proven(made: onnx.ModelProto, folder: Path, changes: Changes) -> Declared:
    """As an import without golden rows proves it."""
    found = declared(made, folder, changes)
    rows = proving.drawn(found)
    proving.require_sound(found, rows, rows_opened=changes.dynamic_batch)
    proving.require_unchanged(reading.read(folder / "model.onnx").model, found, changes, rows)
    return found


def answers(found: Declared, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    names = [tensor.name for tensor in found.signature.outputs]
    return dict(zip(names, proving.session(found.graph).run(names, inputs), strict=True))


def passed_on(kind: int = TensorProto.FLOAT, *, domain: str = "", op_type: str = "Identity") -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"], ["y"], domain=domain)
    ends = [foreign.value("x", ["N", 2], kind)], [foreign.value("y", ["N", 2], kind)]
    return foreign.model([node], *ends, opsets={"": 20} | ({domain: 1} if domain else {}))

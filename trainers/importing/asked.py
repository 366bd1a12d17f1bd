"""What the command line asks an import to do with a graph, read from its words. Looks at no graph."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any  # Any: JSON values

import msgspec

from trainers.errors import SpecError

LABELS_MAX = 100_000
BATCH_MAX = 1024
"""Larger ones gain nothing on a CPU, and every candidate is run with them."""


class Changes(msgspec.Struct, frozen=True):
    """`constants`, `batch_axes`, `outputs` and the keys of `renames` name tensors as the file does, `shapes` as published."""

    constants: Mapping[str, Any] = {}
    batch_axes: Mapping[str, int] = {}
    outputs: tuple[str, ...] = ()
    renames: Mapping[str, str] = {}
    shapes: Mapping[str, tuple[int | str, ...]] = {}
    dynamic_batch: bool = False

    @property
    def is_rewritten(self) -> bool:
        return bool(self.constants or self.batch_axes or self.outputs)


class Words(msgspec.Struct, frozen=True):
    """What tensors mean to callers: `columns` by published tensor name, `nullable` names columns, `labels` classes."""

    columns: Mapping[str, tuple[str, ...]] = {}
    nullable: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` options, each name once."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise SpecError(f"{option} '{text}' must be NAME=VALUE")
        if name in found:
            raise SpecError(f"{option} names '{name}' twice")
        found[name] = value
    return found


def axes(given: Sequence[str]) -> dict[str, int]:
    """`NAME=1`: on which axis a tensor of the file has its rows."""
    found = pairs("--batch-axis", given)
    for name, value in found.items():
        if not value.isdigit():
            raise SpecError(f"--batch-axis '{name}={value}' must name an axis, counted from 0")
    return {name: int(value) for name, value in found.items()}


def constants(given: Sequence[str]) -> dict[str, Any]:
    """JSON values; what is no JSON is a string."""
    return {name: _value(value) for name, value in pairs("--constant", given).items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def shapes(given: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """`NAME=batch,tokens,128`."""
    found: dict[str, tuple[int | str, ...]] = {}
    for name, value in pairs("--shape", given).items():
        shape = tuple(int(part) if part.isdigit() else part for part in names(f"--shape {name}", value))
        if shape[0] != "batch" or 0 in shape:
            raise SpecError(f"--shape {name}={value} must begin with 'batch', and no size is 0")
        found[name] = shape
    return found


OWN_NAME = "*"
"""`--columns '*'`: every input of one value per row is a column of its own name, as skl2onnx makes of a data frame."""


def columns(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`NAME=a,b,c`, or `*`."""
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        if text == OWN_NAME:
            found[OWN_NAME] = ()
        else:
            found |= {name: names(f"--columns {name}", value) for name, value in pairs("--columns", [text]).items()}
    return found


def batches(text: str) -> tuple[int, ...]:
    """`1,8,32`: batch sizes, each expected as often as the others."""
    found = names("--batches", text)
    if not all(size.isdigit() and 0 < int(size) <= BATCH_MAX for size in found):
        raise SpecError(f"--batches '{text}' must be whole numbers from 1 to {BATCH_MAX}")
    return tuple(sorted(map(int, found)))


def names(option: str, text: str) -> tuple[str, ...]:
    """Words between commas, each once."""
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise SpecError(f"{option} '{text}' has an empty name")
    doubled = sorted({name for name in found if found.count(name) > 1})
    if doubled and not option.startswith("--shape"):
        raise SpecError(f"{option} names '{doubled[0]}' twice")
    return found


def labels(text: str) -> tuple[str, ...]:
    """Names of classes in their order: words between commas, or a file with a JSON list or one name a line."""
    path = Path(text)
    found = _labels_of(path) if path.suffix in {".json", ".txt"} else list(names("--labels", text))
    if not all(isinstance(label, str) and label for label in found) or not 0 < len(found) <= LABELS_MAX:
        raise SpecError(f"--labels {text} must hold from 1 to {LABELS_MAX:,} names, none of them empty")
    if len(set(found)) < len(found):
        raise SpecError(f"--labels {text} has a name twice")
    return tuple(found)


def _labels_of(path: Path) -> list[Any]:
    try:
        written = path.read_text(encoding="utf-8")
        read = json.loads(written) if path.suffix == ".json" else written.splitlines()
    except OSError as error:
        raise SpecError(f"--labels {path}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"--labels {path}: {error}") from error
    if not isinstance(read, list):
        raise SpecError(f"--labels {path} must hold a JSON list of names")
    return [label if isinstance(label, str) else str(label) for label in read]

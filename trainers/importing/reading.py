"""Reads an ONNX file that somebody else made, and refuses what no gateway would load. Fails closed: what is not known is refused.

Returns one self-contained graph: tensors that were kept in files beside it and functions of its own are inlined. Runs nothing.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import onnx
from onnx import external_data_helper, inliner
from onnx.external_data_helper import ExternalDataInfo

from trainers.errors import ModelInvalid, SpecError

BYTES_MAX = 1 << 30
"""With all its data. Protobuf holds less than 2 GiB, and a graph is held several times while it is checked and rewritten."""

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators onnxruntime has built in. The gateway loads no library of others, which would be foreign code."""

WORDS_MAX = 300
"""Of an error that onnx or onnxruntime words: the rest is a dump."""


class Source(msgspec.Struct, frozen=True):
    """The file as a graph, and what it says about itself. `sha256` is of the file and all its external data."""

    model: onnx.ModelProto
    sha256: str
    size: int
    producer: str
    opset: int


def read(path: Path) -> Source:
    """Raises `SpecError` for a file that cannot be read, `ModelInvalid` for one that cannot be served."""
    data = _bytes(path)
    model = parsed(data, path.name)
    if not model.graph.node or not model.ir_version:
        raise ModelInvalid(f"'{path.name}' is not an ONNX file, or its graph is empty")
    digest, size = hashlib.sha256(data), len(data)
    for location, content in _external(model, path, BYTES_MAX - size):
        digest.update(f"{location} {len(content)};".encode() + content)
        size += len(content)
    _load_external(model, path)
    model = _inlined(model, path.name)
    opset = _require_supported(model, path.name)
    require_valid(model, path.name)
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    return Source(model, digest.hexdigest(), size, producer, opset)


def parsed(data: bytes, name: str) -> onnx.ModelProto:
    try:
        return onnx.load_from_string(data)
    except Exception as error:  # protobuf's own classes
        raise ModelInvalid(
            f"'{name}' is not an ONNX file; convert the model to one first, a pickle is never opened"
        ) from error


def require_valid(model: onnx.ModelProto, what: str) -> None:
    """The checker's whole opinion, with inferred shapes."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # its own classes and bare ValueError and RuntimeError alike
        raise ModelInvalid(f"'{what}' is not valid ONNX: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:WORDS_MAX]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """This graph and all graphs inside its nodes: branches and bodies of loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in {5, 10} else ():
                yield from graphs(inner)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        _require_size(size, path.name)
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"model file '{path}': {error.strerror}") from error


def _require_size(size: int, name: str) -> None:
    if size > BYTES_MAX:
        raise ModelInvalid(f"'{name}' has {size:,} bytes with its data; at most {BYTES_MAX:,} can be imported")


def _external(model: onnx.ModelProto, path: Path, bytes_left: int) -> Iterator[tuple[str, bytes]]:
    """Each file that holds tensors, once. It must lie beside the model, and nowhere else by any detour."""
    seen: set[str] = set()
    folder = path.parent.resolve()
    for tensor in external_data_helper._get_all_tensors(model):  # noqa: SLF001  # it knows all places a tensor may be in
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        if location in seen:
            continue
        seen.add(location)
        beside = folder / location
        if not location or Path(location).is_absolute() or beside.resolve().parent != folder or beside.is_symlink():
            raise ModelInvalid(f"'{path.name}' keeps tensors in '{location}'; only a file beside the model is read")
        if not beside.is_file():
            raise ModelInvalid(f"'{path.name}' keeps tensors in '{location}', which is not beside it; copy it there")
        size = beside.stat().st_size
        bytes_left -= size
        _require_size(BYTES_MAX - bytes_left, path.name)
        yield location, beside.read_bytes()


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # as in `require_valid`
        raise ModelInvalid(f"'{path.name}' keeps tensors in a file that lacks them: {first_line(error)}") from error


def _inlined(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Functions that the file defines itself, as plain nodes."""
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # as in `require_valid`
        raise ModelInvalid(f"'{name}' defines functions that cannot be inlined: {first_line(error)}") from error


def _require_supported(model: onnx.ModelProto, name: str) -> int:
    """The version of ONNX's own operators."""
    if model.ir_version > onnx.IR_VERSION:
        raise ModelInvalid(
            f"'{name}' has IR version {model.ir_version}; at most {onnx.IR_VERSION} is known here, export it for an older one"
        )
    versions = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    used = {(node.domain, node.op_type) for graph in graphs(model.graph) for node in graph.node}
    foreign = sorted(f"{domain}.{kind}" for domain, kind in used if domain not in DOMAINS)
    if foreign:
        raise ModelInvalid(
            f"'{name}' uses custom operators, which no gateway loads: {', '.join(foreign[:5])}; "
            "export it with ONNX's own operators"
        )
    newest = onnx.defs.onnx_opset_version()
    opset = versions.get("ai.onnx", 0)
    if opset > newest:
        raise ModelInvalid(f"'{name}' has opset {opset}; at most {newest} is known here, export it for an older one")
    return opset or 1

"""Changes to a graph that its answers do not notice: inputs baked in, rows moved to the first axis, outputs dropped, new names.

Each function changes the model it is given. What was meant and what came out are compared by `proving`.
"""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any  # Any: JSON values

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trainers.arrays import Array
from trainers.errors import ModelInvalid, SpecError
from trainers.importing.asked import Changes
from trainers.importing.reading import graphs

PREFIX = "import/"
"""Of every name that is made here."""


def rewritten(model: onnx.ModelProto, changes: Changes) -> onnx.ModelProto:
    """A changed copy. Raises `SpecError` for a change that this graph has no use for."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    _drop_initialized_inputs(graph)
    _detach_outputs(graph)
    for name, value in changes.constants.items():
        _bake_in(graph, name, value)
    for name, axis in changes.batch_axes.items():
        _move_rows(graph, name, axis)
    if changes.outputs:
        _keep(graph, changes.outputs)
    _rename(graph, changes.renames)
    del graph.value_info[:]  # shapes of before; onnxruntime infers its own
    return made


def in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with every node after those it needs: onnxruntime puts an inlined branch at the end, and onnx's checker minds."""
    graph = model.graph
    made_by = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    sorter = TopologicalSorter(
        {i: {made_by[name] for name in _read(node) if name in made_by} for i, node in enumerate(graph.node)}
    )
    try:
        ordered = [graph.node[i] for i in sorter.static_order()]
    except CycleError as error:
        raise ModelInvalid("the graph has a cycle") from error
    del graph.node[:]
    graph.node.extend(ordered)
    return model


def _drop_initialized_inputs(graph: onnx.GraphProto) -> None:
    """Before IR version 4 constants were listed among the inputs; nobody has to send them."""
    constants = {tensor.name for tensor in graph.initializer}
    kept = [each for each in graph.input if each.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)


def _detach_outputs(graph: onnx.GraphProto) -> None:
    """An output that is also an input, so that each can be renamed and transposed alone."""
    taken = {each.name for each in graph.input}
    for output in graph.output:
        if output.name in taken:
            raise ModelInvalid(f"output '{output.name}' is an input passed on; remove it, or put an Identity between")


def _bake_in(graph: onnx.GraphProto, name: str, value: Any) -> None:
    declared = _named("--constant", graph.input, name)
    array = _constant(name, value, declared.type.tensor_type.elem_type)
    shape = [dimension.dim_value for dimension in declared.type.tensor_type.shape.dim]
    if array.ndim != len(shape) or any(want not in {0, got} for want, got in zip(shape, array.shape, strict=True)):
        raise SpecError(f"--constant {name} has shape {list(array.shape)}; the file declares {shape} (0: any)")
    graph.input.remove(declared)
    graph.initializer.append(numpy_helper.from_array(array, name))


def _constant(name: str, value: Any, kind: int) -> Array:
    """The value as this element type of onnx, if it is one exactly."""
    is_text = kind == onnx.TensorProto.STRING
    wanted = helper.tensor_dtype_to_np_dtype(kind)
    refusal = SpecError(f"--constant {name}={value} is no {onnx.TensorProto.DataType.Name(kind)}")
    try:
        array = np.array(value, object if is_text else None)
        with np.errstate(all="ignore"):  # what does not fit is found by comparing
            exact = array.astype(wanted)
    except (ValueError, TypeError, OverflowError) as error:
        raise refusal from error
    if is_text:
        fits = all(isinstance(each, str) for each in array.ravel())
    else:
        fits = array.dtype.kind in ("b" if wanted.kind == "b" else "iuf")
        same = np.isfinite(exact) == np.isfinite(array) if wanted.kind == "f" else exact == array
        fits = fits and bool(same.all())
    if not fits:
        raise refusal
    return exact


def _move_rows(graph: onnx.GraphProto, name: str, axis: int) -> None:
    """Callers see the rows first; the nodes of the file get and give them where they had them."""
    inside = f"{PREFIX}{name}"
    is_input = any(each.name == name for each in graph.input)
    declared = _named("--batch-axis", [*graph.input, *graph.output], name)
    dimensions = list(declared.type.tensor_type.shape.dim)
    if not declared.type.tensor_type.HasField("shape") or axis >= len(dimensions):
        raise SpecError(f"--batch-axis {name}={axis}: the tensor has {len(dimensions)} axes, counted from 0")
    for i, each in enumerate(graphs(graph)):
        for node in each.node:
            _replace(node.input, {name: inside})
            _replace(node.output, {name: inside})
        for value in each.output if i else ():
            value.name = inside if value.name == name else value.name
    rest = [i for i in range(len(dimensions)) if i != axis]
    order = [axis, *rest]
    moved = [dimensions[i] for i in order]
    del declared.type.tensor_type.shape.dim[:]
    declared.type.tensor_type.shape.dim.extend(moved)
    if is_input:
        back = [order.index(i) for i in range(len(order))]
        node = helper.make_node("Transpose", [name], [inside], name=f"{inside}/moved", perm=back)
        graph.node.insert(0, node)
    else:
        graph.node.append(helper.make_node("Transpose", [inside], [name], name=f"{inside}/moved", perm=order))


def _keep(graph: onnx.GraphProto, outputs: Sequence[str]) -> None:
    """These outputs in this order; nodes, constants and inputs that only others needed go."""
    kept = [_named("--outputs", graph.output, name) for name in outputs]
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        nodes.append(node)
        needed.update(_read(node))
    del graph.output[:], graph.node[:]
    graph.output.extend(kept)
    graph.node.extend(reversed(nodes))
    for part in (graph.input, graph.initializer):
        left = [each for each in part if each.name in needed]
        del part[:]
        part.extend(left)
    if not graph.input:
        raise SpecError(f"--outputs {','.join(outputs)} depend on no input")


def _read(node: onnx.NodeProto) -> set[str]:
    """All names that a node needs, those that its inner graphs take from outside among them."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs) if attribute.type in {5, 10} else ():
            names.update(each.name for each in inner.output)
            names.update(name for each in inner.node for name in _read(each))
    return names


def _rename(graph: onnx.GraphProto, renames: Mapping[str, str]) -> None:
    if not renames:
        return
    ends = [*graph.input, *graph.output]
    used = {name for each in graphs(graph) for node in each.node for name in (*node.input, *node.output)}
    used |= {each.name for each in (*ends, *graph.initializer)}
    for old, new in renames.items():
        _named("--rename", ends, old)
        if new in used:
            raise SpecError(f"--rename {old}={new}: the graph uses '{new}' already")
        used.add(new)
    for each in graphs(graph):
        for node in each.node:
            _replace(node.input, renames)
            _replace(node.output, renames)
        for value in each.output:
            value.name = renames.get(value.name, value.name)
    for value in graph.input:
        value.name = renames.get(value.name, value.name)


def _replace(names: Any, renames: Mapping[str, str]) -> None:  # Any: protobuf's repeated field
    for i, name in enumerate(names):
        names[i] = renames.get(name, name)


def _named(option: str, ends: Sequence[onnx.ValueInfoProto], name: str) -> onnx.ValueInfoProto:
    found = next((each for each in ends if each.name == name), None)
    if found is None:
        raise SpecError(f"{option} '{name}' is not in the file; it has: {', '.join(each.name for each in ends)}")
    return found

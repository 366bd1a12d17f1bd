"""The recipes by the name that a manifest records, each with the arguments it records: from graph to graph.

Says how a variant was made so that it can be made again; decides nothing. Large embedding tables become int8 with every int8
recipe, for they are lookups and no recipe's own subject.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from trainers.arrays import Array
from trainers.quantize import dynamic, gather, halves, nbits, rowwise, static

Args = Mapping[str, str | float | bool]


class Source(msgspec.Struct, frozen=True):
    """The prepared graph, rows to calibrate with, and a folder in which what calibration finds is kept between recipes."""

    graph: bytes
    rows: Mapping[str, Array]
    folder: Path


def build(recipe: str, source: Source, args: Args, skip: Collection[str] = ()) -> bytes | None:
    """The rewritten graph, not optimized; None when the recipe finds nothing to change. `skip` names nodes that stay fp32."""
    made = _RECIPES[recipe](source, args, skip)
    if made is None or recipe in _PLAIN:
        return made
    return gather.rewrite(made) or made


def names(recipe: str, source: Source) -> tuple[str, ...]:
    """The nodes that this recipe can leave fp32."""
    return rowwise.names(source.graph) if recipe == "rowwise_i8" else static.names(source.graph)


def _rowwise(source: Source, args: Args, skip: Collection[str]) -> bytes | None:
    weight_max = rowwise.WEIGHT_MAX if args["reduce_range"] else rowwise.WEIGHT_MAX_FULL
    return rowwise.rewrite(source.graph, weight_max=weight_max, skip=skip)


def _static_mm(source: Source, args: Args, skip: Collection[str]) -> bytes | None:
    return static.multiplications(
        source.graph,
        source.rows,
        reduce_range=bool(args["reduce_range"]),
        skip=skip,
        ranges=source.folder / "multiplications.json",
    )


def _static_qdq(source: Source, args: Args, skip: Collection[str]) -> bytes | None:
    method = next(method for method in static.METHODS if method == args["method"])
    return static.convolutions(
        source.graph,
        source.rows,
        per_channel=bool(args["per_channel"]),
        method=method,
        reduce_range=bool(args["reduce_range"]),
        skip=skip,
        ranges=source.folder / f"convolutions-{method}.json",
    )


def _dynamic(source: Source, args: Args, skip: Collection[str]) -> bytes | None:
    return dynamic.rewrite(source.graph, reduce_range=bool(args["reduce_range"]), skip=skip)


_RECIPES: Mapping[str, Callable[[Source, Args, Collection[str]], bytes | None]] = {
    "w_fp16": lambda source, args, skip: halves.rewrite(source.graph),
    "gather_i8": lambda source, args, skip: gather.rewrite(source.graph),
    "rowwise_i8": _rowwise,
    "static_mm": _static_mm,
    "static_qdq": _static_qdq,
    "dyn_i8": _dynamic,
    "nbits8": lambda source, args, skip: nbits.rewrite(source.graph, bits=8),
    "nbits4": lambda source, args, skip: nbits.rewrite(source.graph, bits=4),
}
_PLAIN = frozenset({"w_fp16", "gather_i8"})

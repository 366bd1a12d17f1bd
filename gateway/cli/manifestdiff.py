"""Two versions side by side on a terminal: only what differs, and for numbers by how much."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.contract.manifest import Manifest, Tensor, TextInput, Variant

Figures = dict[str, float | str]


def render(console: Console, a: tuple[int, Manifest], b: tuple[int, Manifest]) -> None:
    """Print it; the same artifact under two numbers is one sentence."""
    names = [f"{manifest.model}@{version}" for version, manifest in (a, b)]
    rows = list(_rows(a[1], b[1]))
    if not rows:
        console.print(f"{names[0]} and {names[1]} do not differ", highlight=False)
        return
    table = Table("what", *names, "change", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _rows(a: Manifest, b: Manifest) -> Iterator[tuple[str, str, str, str]]:
    for what, ours, theirs in (
        ("about", _about(a), _about(b)),
        ("input", _tensors(a.signature.inputs), _tensors(b.signature.inputs)),
        ("output", _tensors(a.signature.outputs), _tensors(b.signature.outputs)),
        ("variant", _variants(a), _variants(b)),
        ("metric", _metrics(a), _metrics(b)),
        ("gate", _gates(a), _gates(b)),
    ):
        yield from _differing(what, ours, theirs)


def _differing(
    what: str, a: Mapping[str, float | str], b: Mapping[str, float | str]
) -> Iterator[tuple[str, str, str, str]]:
    for name in dict.fromkeys((*a, *b)):
        ours, theirs = a.get(name), b.get(name)
        if ours != theirs:
            yield f"{what} {name}", _text(ours), _text(theirs), _change(ours, theirs)


def _about(manifest: Manifest) -> Figures:
    cost = manifest.training_cost.cost_picousd
    data = [f"{source.name} {source.rows:,} rows to {source.last}" for source in manifest.lineage.data]
    text = manifest.text
    read = (
        f"{text.column} by {manifest.file(text.file).sha256[:12]}, {text.length_max} tokens"
        if isinstance(text, TextInput)
        else ""
    )
    parameters = {f"parameter {name}": str(value) for name, value in manifest.lineage.parameters.items()}
    return {
        "description": manifest.description,
        "serves": manifest.serve,
        "labels": ", ".join(manifest.labels),
        "text": read,
        "data": "; ".join(data),
        "recipe": manifest.lineage.recipe,
        "seed": float(manifest.lineage.seed),
        "training": "unpriced" if cost is None else cost / 1e12,
        **parameters,
    }


def _tensors(tensors: Iterable[Tensor]) -> Figures:
    described: Figures = {}
    for tensor in tensors:
        described[tensor.name] = f"{tensor.datatype} [{', '.join(map(str, tensor.shape))}]"
        for column in tensor.columns:
            null = " or null" if column.nullable else ""
            known = f", {len(column.known)} known" if column.known else ""
            described[f"{tensor.name}.{column.name}"] = f"{column.datatype}{null}{known}"
    return described


def _variants(manifest: Manifest) -> Figures:
    figures: Figures = {}
    for variant in manifest.variants:
        file = manifest.file(variant.file)
        figures[f"{variant.id} sha256"] = file.sha256[:12]
        figures[f"{variant.id} bytes"] = float(file.size)
        figures |= {f"{variant.id} {name}": value for name, value in _measured(variant).items()}
    return figures


def _measured(variant: Variant) -> Figures:
    figures: Figures = {"batch max": float(variant.max_batch)}
    figures |= {f"us at batch {cell.batch}": cell.p50_ns / 1000 for cell in variant.latency}
    if variant.load_ns is not None:
        figures["load ms"] = variant.load_ns / 1e6
    if variant.resident_bytes is not None:
        figures["resident bytes"] = float(variant.resident_bytes)
    if variant.requires:
        figures["requires"] = ", ".join(variant.requires)
    return figures


def _metrics(manifest: Manifest) -> Figures:
    return {
        f"{evaluation.subject} {name}": value
        for evaluation in manifest.evaluations
        for name, value in evaluation.metrics.items()
    }


def _gates(manifest: Manifest) -> Figures:
    return {f"{gate.variant} {gate.name}": "passed" if gate.passed else "failed" for gate in manifest.gates}


def _text(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _change(a: float | str | None, b: float | str | None) -> str:
    if not isinstance(a, float) or not isinstance(b, float) or not a:
        return ""
    return f"{(b - a) / abs(a):+.1%}"

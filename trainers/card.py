"""The model card: what a person should know before relying on the model, as Markdown. Everything in it is in the manifest too."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.contract.manifest import Evaluation, Manifest, Variant
from gateway.contract.prices import PICO_PER_USD

IMPORTED = "imported"
"""The machine of a model that was trained elsewhere: what that cost is not known here."""


def card(manifest: Manifest, split: str, plots: Mapping[str, str]) -> str:
    """`split`: how the data was divided; `plots`: titles by file name."""
    sections = [
        f"# {manifest.model}\n\n{manifest.description}",
        f"## Data\n\n{_data(manifest, split)}",
        f"## Quality\n\n{_quality(manifest.evaluations)}",
        *(f"![{title}]({name})" for name, title in plots.items()),
        f"## Choice\n\n{_sentences(manifest.choice)}\n\n{_choice(manifest)}",
        f"## Gates\n\n{_gates(manifest)}",
        f"## Training\n\n{_training(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


def _data(manifest: Manifest, split: str) -> str:
    rows = [
        (
            source.name,
            f"{source.rows:,}",
            f"{source.first} to {source.last}" if source.first else "",
            source.sha256[:12],
        )
        for source in manifest.lineage.data
    ]
    columns = [
        (column.name, column.datatype, column.unit, "yes" if column.nullable else "", column.description)
        for tensor in manifest.signature.inputs
        for column in tensor.columns
    ]
    return "\n\n".join(
        [
            table(("source", "rows", "period", "sha256"), rows),
            f"Splits are {split}.",
            table(("input", "type", "unit", "may be null", "meaning"), columns),
        ]
    )


def _quality(evaluations: Sequence[Evaluation]) -> str:
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.metrics))
    rows = [
        (
            evaluation.subject,
            evaluation.split,
            f"{evaluation.rows:,}",
            *(_measured(evaluation, name) for name in names),
        )
        for evaluation in evaluations
    ]
    gains = [
        f"- {name}: {low:+.4f} to {high:+.4f}" + ("" if low > 0 else ", so it may be no better")
        for evaluation in evaluations
        for name, (low, high) in (evaluation.gains or {}).items()
    ]
    if not rows:
        return "Not measured: there were no rows with known targets."
    parts = [table(("subject", "split", "rows", *names), rows), "In brackets: 95 % intervals of the paired bootstrap."]
    if gains:
        parts += ["How much better than the baseline the served variant is, on the same rows:", "\n".join(gains)]
    return "\n\n".join(parts)


def _choice(manifest: Manifest) -> str:
    rows = [
        (
            variant.id,
            "yes" if variant.id == manifest.serve else "",
            *(f"{cell.p50_ns / 1000:.1f}" for cell in variant.latency),
            f"{(variant.load_ns or 0) / 1e6:.1f}",
            f"{manifest.file(variant.file).size:,}",
        )
        for variant in manifest.variants
    ]
    return table(("variant", "served", *_batches(manifest.variants), "load ms", "bytes"), rows)


def _sentences(choice: str) -> str:
    """One candidate a line."""
    first, *others = choice.split("; ")
    return "\n".join([first, *(["", *(f"- {other}" for other in others)] if others else [])])


def _batches(variants: Sequence[Variant]) -> list[str]:
    return [f"us at batch {cell.batch}" for cell in variants[0].latency]


def _gates(manifest: Manifest) -> str:
    rows = [
        (
            gate.variant,
            gate.name,
            f"{gate.measured:.3g}",
            f"{gate.limit:.3g}",
            "yes" if gate.passed else "NO",
            gate.detail,
        )
        for gate in manifest.gates
    ]
    return table(("variant", "gate", "measured", "at most", "passed", "why"), rows)


def _training(manifest: Manifest) -> str:
    lineage, cost = manifest.lineage, manifest.training_cost
    price = "unpriced" if cost.cost_picousd is None else f"{cost.cost_picousd / PICO_PER_USD:.6f} USD at list price"
    facts = {"run": lineage.run_id, "recipe": lineage.recipe, "seed": lineage.seed}
    known = "trained elsewhere, at a cost that is not known here"
    facts |= {"cost": known if cost.sku == IMPORTED else f"{price}, {cost.seconds:.1f} s as {cost.sku}"}
    return table(("", ""), [*(facts | lineage.parameters | lineage.code | lineage.environment).items()])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _measured(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.metrics:
        return ""
    interval = (evaluation.intervals or {}).get(name)
    return f"{evaluation.metrics[name]:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")

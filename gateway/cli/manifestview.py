"""A manifest on a terminal: what was measured, what passed, where it came from, what it cost."""

from datetime import UTC, datetime

from msgspec import UNSET
from rich.console import Console
from rich.table import Table

from gateway.contract.manifest import AttemptCost, Manifest, TextInput, Tradeoff, TrainingCost, Variant


def render(console: Console, version: int, manifest: Manifest, signed: str) -> None:
    """Print one version; `signed` says by whom."""
    made = datetime.fromtimestamp(manifest.created_ns / 1e9, UTC)
    console.print(f"[bold]{manifest.model}@{version}[/]  {manifest.description}")
    console.print(
        f"made {made:%Y-%m-%d %H:%M} UTC by run {manifest.lineage.run_id}, recipe {manifest.lineage.recipe}",
        highlight=False,
    )
    console.print(signed, highlight=False)
    console.print(f"serves [bold]{manifest.serve}[/]", highlight=False)
    for clause in manifest.choice.split("; "):
        console.print(f"  {clause}", highlight=False, markup=False)
    if isinstance(manifest.text, TextInput):
        file = manifest.file(manifest.text.file)
        console.print(
            f"reads text from column '{manifest.text.column}': {file.name}, {file.size / 1e6:.3f} MB, "
            f"at most {manifest.text.length_max} tokens",
            highlight=False,
            markup=False,
        )
    if manifest.labels:
        console.print(f"labels: {', '.join(manifest.labels)}", highlight=False, markup=False)
    console.print(_variants(manifest), *_tradeoffs(manifest), _evaluations(manifest), _gates(manifest))
    for recipe, reason in (manifest.skipped or {}).items():
        console.print(f"no {recipe}: {reason}", highlight=False)
    cost = manifest.training_cost
    price = "unpriced" if cost.cost_picousd is None else f"${cost.cost_picousd / 1e12:.6f}"
    console.print(f"training: {cost.seconds:.1f} s on {cost.sku}, {price}{_wasted(cost)}", highlight=False)
    if cost.attempts:
        console.print(_attempts(cost.attempts))
    for source in manifest.lineage.data:
        console.print(
            f"data: {source.name}, {source.rows:,} rows, {source.first} to {source.last}, sha256 {source.sha256[:12]}",
            highlight=False,
        )


def _wasted(cost: TrainingCost) -> str:
    """Nothing in manifests from before it was known."""
    if cost.wasted_picousd is UNSET or cost.wasted_picousd is None:
        return ""
    return f", of which wasted ${cost.wasted_picousd / 1e12:.6f}"


def _attempts(attempts: tuple[AttemptCost, ...]) -> Table:
    table = Table(title="attempts", title_justify="left")
    for heading in ("instance", "zone", "market", "$/h"):
        table.add_column(heading)
    for heading in ("s", "steps", "lost"):
        table.add_column(heading, justify="right")
    for attempt in attempts:
        table.add_row(
            attempt.instance,
            attempt.zone or "-",
            attempt.market,
            attempt.usd_per_hour or "unpriced",
            f"{attempt.seconds:.1f}",
            f"{attempt.steps_done:,}",
            f"{attempt.steps_lost:,}",
        )
    return table


def _variants(manifest: Manifest) -> Table:
    table = Table(
        "variant",
        "recipe",
        "size",
        "load",
        "batch 1 p50",
        "batch max",
        "batch-invariant",
        title="variants",
        title_justify="left",
    )
    for variant in manifest.variants:
        size = manifest.file(variant.file).size
        load = "" if variant.load_ns is None else f"{variant.load_ns / 1e6:.1f} ms"
        table.add_row(
            variant.id,
            variant.recipe,
            f"{size / 1e6:.3f} MB",
            load,
            _single(variant),
            str(variant.max_batch),
            _yes(variant.batch_invariant),
        )
    return table


def _tradeoffs(manifest: Manifest) -> list[Table]:
    """From which the variant was chosen; manifests of before it was recorded have none. A star: no other one beats it."""
    lines = [(variant, variant.tradeoff) for variant in manifest.variants if isinstance(variant.tradeoff, Tradeoff)]
    if not lines:
        return []
    table = Table(
        "variant",
        "CPU per row",
        "against fp32",
        "1,000 rows",
        "load",
        "size",
        "resident",
        "requires",
        "notes",
        title="trade-offs at the expected mix of batches (* no other one beats it)",
        title_justify="left",
    )
    for variant, line in lines:
        ratio = line.ratio
        noise = ", noisy" if line.is_noisy else ""
        table.add_row(
            f"{variant.id}{' *' if line.is_pareto else ''}",
            f"{line.row_cpu_ns / 1e3:.1f} us",
            f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f}{noise})",
            "unpriced" if line.thousand_picousd is None else f"{line.thousand_picousd / 1e6:.4g} u$",
            "" if variant.load_ns is None else f"{variant.load_ns / 1e6:.1f} ms",
            f"{manifest.file(variant.file).size / 1e6:.3f} MB",
            "" if variant.resident_bytes is None else f"{variant.resident_bytes / 1e6:.1f} MB",
            ", ".join(variant.requires),
            line.notes,
        )
    return [table]


def _evaluations(manifest: Manifest) -> Table:
    names = list(dict.fromkeys(name for evaluation in manifest.evaluations for name in evaluation.metrics))
    table = Table("subject", "split", "rows", *names, title="evaluations", title_justify="left")
    for evaluation in manifest.evaluations:
        values = [f"{evaluation.metrics[name]:.4f}" if name in evaluation.metrics else "" for name in names]
        table.add_row(evaluation.subject, evaluation.split, f"{evaluation.rows:,}", *values)
    return table


def _gates(manifest: Manifest) -> Table:
    table = Table("gate", "variant", "passed", "measured", "limit", "why", title="gates", title_justify="left")
    for gate in manifest.gates:
        measured, limit = f"{gate.measured:.3g}", f"{gate.limit:.3g}"
        table.add_row(gate.name, gate.variant, _yes(gate.passed), measured, limit, gate.detail)
    return table


def _single(variant: Variant) -> str:
    for latency in variant.latency:
        if latency.batch_rows == 1:
            return f"{latency.p50_ns / 1e3:.1f} us"
    return ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"

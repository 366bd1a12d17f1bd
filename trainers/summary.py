"""What a finished run shows in the terminal: every candidate's quality and cost side by side, the choice, the published version."""

from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.contract.manifest import Manifest
from gateway.contract.prices import PICO_PER_USD
from gateway.contract.promotions import Decision
from gateway.contract.registry import Promotion, VersionRecord
from trainers.card import IMPORTED
from trainers.comparison import doubtful
from trainers.promotion import wording


class Published(Protocol):
    """What a run or an import leaves."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def record(self) -> VersionRecord: ...

    @property
    def promotion(self) -> Promotion | None: ...

    @property
    def decision(self) -> Decision | None: ...


def show(console: Console, result: Published, *, is_quiet: bool) -> None:
    """Quiet means one line, for scripts: model, version, manifest digest."""
    record, manifest = result.record, result.manifest
    if is_quiet:
        console.print(f"{record.model} {record.version} {record.manifest_sha256}", highlight=False, soft_wrap=True)
        return
    if manifest.evaluations:
        console.print(_quality(manifest))
    console.print(_serving(manifest))
    console.print(manifest.choice, highlight=False)
    if manifest.evaluations:
        _over_baseline(console, manifest)
    console.print(f"training cost: {cost(manifest)}", highlight=False)
    console.print(
        f"published: model '{record.model}' version {record.version} ({record.manifest_sha256[:12]})", highlight=False
    )
    if result.decision:
        decided(console, result.decision)
    if result.promotion:
        answers = f"alias '{result.promotion.alias}' answers with version {result.promotion.version}"
        console.print(f"promoted: {answers} (generation {result.promotion.generation})", highlight=False)


def decided(console: Console, decision: Decision) -> None:
    """What was decided about the promotion: every gate, and the sentence."""
    if decision.gates:
        table = Table(title=f"version {decision.version} for '{decision.alias}'", title_justify="left")
        for head in ("gate", "measured", "must be", ""):
            table.add_column(head, justify="right" if head in {"measured", "must be"} else "left")
        for gate in decision.gates:
            measured = "nothing" if gate.measured is None else f"{gate.measured:.4g}"
            if gate.interval is not None:
                measured = " to ".join(f"{end:+.4f}" for end in gate.interval)
            table.add_row(gate.name, measured, wording.limit(gate), "" if gate.passed else "no")
        console.print(table)
    for judged in decision.judged:
        if judged.skipped:
            console.print(f"{judged.name} rows decide nothing: {judged.skipped}", highlight=False)
        elif judged.excluded:
            seen = f"{judged.excluded:,} {judged.name} rows are left out: training has seen them"
            console.print(seen, highlight=False)
    style = "yellow" if decision.verdict == "hold" else None
    console.print(Text(f"{decision.verdict}: {decision.sentence}"), style=style, highlight=False)


def cost(manifest: Manifest) -> str:
    spent = manifest.training_cost
    if spent.sku == IMPORTED:
        return "none here: the model was trained elsewhere"
    if spent.cost_picousd is None:
        return f"unpriced: {spent.seconds:.1f} s, and the price book has no price per hour for '{spent.sku}'; see --priced-as"
    return f"{spent.cost_picousd / PICO_PER_USD:.6f} USD: {spent.seconds:.1f} s at the list price of {spent.sku}"


def _quality(manifest: Manifest) -> Table:
    table = Table(title=f"{manifest.model}: {manifest.evaluations[0].rows:,} held-out rows", title_justify="left")
    metrics = list(manifest.evaluations[0].metrics)
    _columns(table, "", *metrics)
    for evaluation in manifest.evaluations:
        table.add_row(evaluation.subject, *(f"{value:.4f}" for value in evaluation.metrics.values()))
    return table


def _over_baseline(console: Console, manifest: Manifest) -> None:
    """How much better it surely is, and a warning where that is nothing."""
    served = next(evaluation for evaluation in manifest.evaluations if evaluation.subject == manifest.serve)
    if not served.gains:
        return
    gains = ", ".join(f"{name} {low:+.4f} to {high:+.4f}" for name, (low, high) in served.gains.items())
    console.print(f"{manifest.serve} over the baseline, 95 % intervals: {gains}", highlight=False)
    if names := doubtful(manifest.evaluations):
        warning = f"warning: by {', '.join(names)}, this model may be no better than the baseline"
        console.print(warning, highlight=False, style="yellow")


def _serving(manifest: Manifest) -> Table:
    """Medians in microseconds; a star marks the variant that is served."""
    table = Table(title="microseconds per call, by rows in the batch", title_justify="left")
    _columns(table, "", *(cell.batch for cell in manifest.variants[0].latency), "load ms", "KiB")
    for variant in manifest.variants:
        star = " *" if variant.id == manifest.serve else ""
        medians = [f"{cell.p50_ns / 1000:.1f}" for cell in variant.latency]
        load_ms, size = (variant.load_ns or 0) / 1e6, manifest.file(variant.file).size
        table.add_row(variant.id + star, *medians, f"{load_ms:.1f}", f"{size / 1024:.0f}")
    return table


def _columns(table: Table, first: str, *rest: str) -> None:
    table.add_column(first)
    for head in rest:
        table.add_column(head, justify="right")

"""What a finished run shows in the terminal: every candidate's quality and cost side by side, the choice, the published version."""

from rich.console import Console
from rich.table import Table

from gateway.contract.manifest import Evaluation, Manifest
from gateway.contract.prices import PICO_PER_USD
from trainers.run import Result


def show(console: Console, result: Result, *, is_quiet: bool) -> None:
    """Quiet means one line, for scripts: model, version, manifest digest."""
    record, manifest = result.record, result.manifest
    if is_quiet:
        console.print(f"{record.model} {record.version} {record.manifest_sha256}", highlight=False, soft_wrap=True)
        return
    console.print(_table(manifest))
    console.print(manifest.choice, highlight=False)
    console.print(f"training cost: {cost(manifest)}", highlight=False)
    console.print(
        f"published: model '{record.model}' version {record.version} ({record.manifest_sha256[:12]})", highlight=False
    )
    if result.promotion:
        answers = f"alias '{result.promotion.alias}' answers with version {result.promotion.version}"
        console.print(f"promoted: {answers} (generation {result.promotion.generation})", highlight=False)


def cost(manifest: Manifest) -> str:
    spent = manifest.training_cost
    if spent.cost_picousd is None:
        return f"unpriced: {spent.seconds:.1f} s, and the price book has no price per hour for '{spent.sku}'; see --priced-as"
    return f"{spent.cost_picousd / PICO_PER_USD:.6f} USD: {spent.seconds:.1f} s at the list price of {spent.sku}"


def _table(manifest: Manifest) -> Table:
    metrics = list(manifest.evaluations[0].metrics)
    batches = [cell.batch_rows for cell in manifest.variants[0].latency]
    table = Table(title=f"{manifest.model}: {manifest.evaluations[0].rows:,} held-out rows", title_justify="left")
    table.add_column("")
    for head in (*metrics, *(f"us, batch {rows}" for rows in batches), "load ms", "KiB"):
        table.add_column(head, justify="right")
    for evaluation in manifest.evaluations:
        served = " (served)" if evaluation.subject == manifest.serve else ""
        figures = [f"{value:.4f}" for value in evaluation.metrics.values()] or [""] * len(metrics)
        table.add_row(evaluation.subject + served, *figures, *_serving(manifest, evaluation))
    return table


def _serving(manifest: Manifest, evaluation: Evaluation) -> list[str]:
    """Latencies, load time and size; nothing for the baseline, which is never served."""
    variant = next((variant for variant in manifest.variants if variant.id == evaluation.subject), None)
    if variant is None:
        return []
    return [
        *(f"{cell.p50_ns / 1000:.1f}" for cell in variant.latency),
        f"{(variant.load_ns or 0) / 1e6:.1f}",
        f"{manifest.file(variant.file).size / 1024:.0f}",
    ]

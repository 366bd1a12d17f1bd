"""A cost report for people: tables on a terminal, aligned plain text in a pipe. The command and the demo both print it with this.

All money columns of a report have one unit, stated in their heading; exact integers are in the JSON and CSV (`reports.export`).
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.reports import asof, figures, trends
from gateway.reports.costs import AccountCost, Billed, CostReport, ModelCost
from gateway.reports.finding import Finding, ahead_picousd
from gateway.wording import moment

FINDINGS_MAX = 20  # a screen; the JSON has all

_MEANING = {
    "infer": "requests that reached no model",
    "overhead": "HTTP, event loop, memory below the models",
    "ledger": "writing this ledger",
    "boot": "from the start of billing until ready",
    "drain": "stopping",
    "idle_cpu": "vCPU time nobody used",
    "idle_mem": "memory nobody used",
    "correction": "what the provider's bills say differently",
    "unpriced": "billed at a price that is not known: not zero",
    "unattributed": "billed and not explained by any measurement",
}


def render(report: CostReport, console: Console) -> None:
    """Print the report. Nothing in it can be taken for markup or terminal control."""
    if not report.segments:
        say(
            console,
            "no costs yet: the ledger has no segment in this period (a running gateway writes one every few seconds)"
            + _when(report, "; "),
        )
        _training(report, console)
        show_findings(report.findings, console)
        return
    unit = figures.scale(report.charged_picousd).unit
    show_table(console, f"Costs in {unit}{' (millionths of a dollar)' * (unit == figures.MICRO.unit)}", _costs(report))
    if report.models:
        show_table(
            console,
            f"Costs of 1,000 rows in {figures.MICRO.unit}, and of training once",
            _per_1000(report),
        )
    show_table(console, f"Shared costs in {unit}, spread over the models by what each costs itself", _shared(report))
    _bill(report, console)
    _training(report, console)
    show_findings(report.findings, console)


def _costs(report: CostReport) -> Table:
    scale = figures.scale(report.charged_picousd)
    table = _columns("model", "requests", "not ok", "rows", "CPU s", "direct", "warm+load", "shared", "full")
    for row in report.models:
        table.add_row(
            _label(row),
            *(f"{count:,}" for count in (row.requests, row.not_ok, row.rows)),
            f"{row.cpu_ns / 10**9:,.3f}",
            scale.amount(row.infer_picousd),
            scale.amount(row.resident_picousd + row.load_picousd),
            scale.amount(row.shared_picousd),
            scale.amount(row.full_picousd),
        )
    for name, cost in (("other models", report.other_models_picousd), ("no model yet", report.unallocated_picousd)):
        if cost:
            table.add_row(name, *[""] * 7, scale.amount(cost))
    table.add_row("bill", *[""] * 7, scale.amount(report.posted_picousd), style="bold")
    return table


def _per_1000(report: CostReport) -> Table:
    """Always in millionths: a thousand predictions of a small model cost tens of them."""
    table = _columns("model", "direct", "full", "with training", "training", "wasted")
    for row in report.models:
        table.add_row(
            _label(row),
            figures.MICRO.amount(row.infer_per_1000_rows_picousd),
            figures.MICRO.amount(row.full_per_1000_rows_picousd),
            figures.MICRO.amount(row.with_training_per_1000_rows_picousd),
            _training_of(row, report),
            "-" if row.training_wasted_picousd is None else figures.dollars(row.training_wasted_picousd),
        )
    return table


def _training_of(row: ModelCost, report: CostReport) -> str:
    if row.training_picousd is not None:
        return figures.dollars(row.training_picousd)
    return "unknown" if (row.model, row.version) in report.training_unknown else "unpriced"


def _shared(report: CostReport) -> Table:
    scale = figures.scale(report.charged_picousd)
    table = _columns("account", "cost", "% of bill")
    table.columns[0].no_wrap = True
    table.add_column("what it is")
    for account in report.accounts:
        table.add_row(
            Text(figures.printable(account.account)),
            scale.amount(account.cost_picousd),
            f"{100 * account.cost_picousd / max(1, report.posted_picousd):.1f}",
            _meaning(account, ahead_picousd(report.findings)),
        )
    return table


def _meaning(account: AccountCost, ahead: int) -> str:
    """What is billed ahead must not look lost."""
    told = _MEANING.get(account.account, "")
    if account.account != "unattributed" or not ahead:
        return told
    if account.cost_picousd == ahead:
        return "billed ahead for containers that still run"
    return f"{told}, but for {figures.dollars(ahead)} billed ahead for containers that still run"


def _columns(name: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(name, overflow="fold", min_width=12)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def show_table(console: Console, title: str, table: Table) -> None:
    """Where the screen is too narrow, names fold; a number is never cut, not even if the line gets too long."""
    for column in table.columns:
        if column.justify == "right":
            column.min_width = max(len(str(cell)) for cell in (column.header, *column.cells))
    table.width = max(console.measure(table).minimum, min(console.width, console.measure(table).maximum))
    say(console, title, "bold")
    console.print(table, crop=False)
    console.print()


def _label(row: ModelCost) -> Text:
    return Text(f"{figures.printable(row.model)}@{row.version}")


def _bill(report: CostReport, console: Console) -> None:
    lines = [
        f"{figures.size(billed.vcpu_milli, billed.memory_bytes)} for {figures.duration(billed.container_ns)}{_more(billed)} "
        f"on {figures.printable(billed.platform)} = {figures.dollars(billed.cost_picousd)}"
        for billed in report.billed
    ]
    if report.corrected_picousd:
        say(console, f"      corrections by the provider's bills: {figures.dollars(report.corrected_picousd)}")
    if len(lines) > 1 or report.corrected_picousd:
        for line, billed in zip(lines, report.billed, strict=True):
            say(console, f"      {line} ({billed.containers:,} container{'s' * (billed.containers > 1)})")
        lines = [figures.dollars(report.charged_picousd)]
    proof = " = sum of all rows, exact" if report.balanced else ""
    say(console, f"bill: {''.join(lines)}{proof}{trends.sentence(report.trend)}")
    say(console, f"      {moment(report.from_ns)} to {moment(report.to_ns)}, {report.segments:,} segments")
    if told := _when(report):
        say(console, f"      {told}")
    if not report.balanced:
        difference = report.posted_picousd - report.charged_picousd
        say(
            console,
            f"NOT BALANCED: rows add up to {difference:+,} p$ against the bill; do not trust these numbers",
            "bold red",
        )


def _when(report: CostReport, before: str = "") -> str:
    told = asof.sentence(report.as_of, report.until_ns)
    return f"{before}{told}" if told else ""


def _more(billed: Billed) -> str:
    """What the platform's steps and its minimum make of the time lived."""
    return "" if billed.billed_ns == billed.container_ns else f", billed as {figures.duration(billed.billed_ns)},"


def _training(report: CostReport, console: Console) -> None:
    """Beside the bill: other machines, and mostly another day."""
    spent = report.training_spent
    if spent is None:
        return
    wasted = f", of which interruptions wasted {figures.dollars(spent.wasted_picousd)}" if spent.wasted_picousd else ""
    unpriced = f"; unpriced: {spent.unpriced:,} of the attempts" if spent.unpriced else ""
    counted = f"{spent.runs:,} run{'s' * (spent.runs > 1)}, {spent.attempts:,} attempt{'s' * (spent.attempts > 1)}"
    time = figures.duration(spent.elapsed_ns)
    energy = "" if spent.energy_nj is None else f"; {figures.watt_hours(spent.energy_nj)} of its GPUs, measured"
    say(console, f"training: {counted}, {time} = {figures.dollars(spent.cost_picousd)}{wasted}{unpriced}{energy}")


def show_findings(found: Sequence[Finding], console: Console) -> None:
    """Faults first, at most a screen of them."""
    shown = sorted(found, key=lambda finding: not finding.is_fault)
    for finding in shown[:FINDINGS_MAX]:
        say(console, _sentence(finding), "red" if finding.is_fault else "yellow")
    if len(shown) > FINDINGS_MAX:
        say(console, f"... and {len(shown) - FINDINGS_MAX:,} more; --json lists them all")


def _sentence(finding: Finding) -> str:
    return f"{'FAULT' if finding.is_fault else 'note'} ({finding.kind}): {figures.printable(finding.message)}"


def say(console: Console, line: str, style: str = "") -> None:
    """A line of its own, never wrapped: it is read by people and found by grep."""
    console.print(Text(line, style=style), soft_wrap=True)

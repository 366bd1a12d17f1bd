"""A verdict on a terminal: a table of columns, then what follows. Plain aligned text in a pipe."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.wording import moment
from trainers.drift.estimate import Estimate, Performance
from trainers.drift.trigger import ColumnDrift, Verdict, WindowVerdict


def show(console: Console, whose: str, verdict: Verdict, estimate: Estimate | None) -> None:
    """Nothing in it can be taken for markup."""
    table = Table(title=f"{whose}: counted rows against training", title_justify="left", box=None, pad_edge=False)
    for head in ("column", "side", "test"):
        table.add_column(head)
    for head in ("statistic", "rows", "p", "q", "PSI", "allowed", "windows"):
        table.add_column(head, justify="right")
    table.add_column("")
    for column in verdict.columns:
        table.add_row(*_cells(column, verdict), style="bold" if column.is_drifted else "")
    if verdict.judged:
        console.print(table)
    for window in verdict.windows:
        _say(
            console,
            f"{moment(window.from_ns)} to {moment(window.to_ns)}: {window.rows:,} rows counted, {_found(window)}",
        )
    if estimate is not None:
        _say(console, _performance(estimate))
    _say(console, verdict.sentence)


def _found(window: WindowVerdict) -> str:
    if not window.is_judged:
        return "too few to judge"
    different = [column.name for column in window.columns if column.is_different]
    return f"different: {', '.join(different)}" if different else "no column different"


def _cells(column: ColumnDrift, verdict: Verdict) -> list[Text]:
    latest, counted = column.latest, f"{column.different}/{verdict.judged}"
    if latest is None:
        figures = [""] * 7
    else:
        numbers = (
            f"{latest.rows:,}",
            f"{latest.p:.2g}",
            f"{latest.q:.2g}",
            f"{latest.psi:.3f}",
            f"{latest.psi_threshold:.3f}",
        )
        figures = [latest.test, f"{latest.statistic:.4g}", *numbers]
    return [Text(cell) for cell in (column.name, column.side, *figures, counted, column.sentence)]


def _performance(estimate: Estimate) -> str:
    expected, held_out = estimate.expected, estimate.held_out
    return (
        f"estimate of '{estimate.output}' without labels: accuracy {expected.accuracy:.4f} (held-out {held_out.accuracy:.4f}), "
        f"ROC AUC {_auc(expected)} (held-out {_auc(held_out)}), share of yes {expected.yes_share:.4f} "
        f"(held-out {held_out.yes_share:.4f}); it assumes that a probability still means what it meant"
    )


def _auc(performance: Performance) -> str:
    return "unknown" if performance.roc_auc is None else f"{performance.roc_auc:.4f}"


def _say(console: Console, sentence: str) -> None:
    console.print(Text(sentence), soft_wrap=True)

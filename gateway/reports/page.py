"""The cost report as one HTML page that needs nothing else: no script, no font, no request. From `plotdata`, to a string.

Every name in it comes from a bucket and is escaped; a policy in the page forbids whatever is not in it anyway.
"""

from collections.abc import Sequence
from html import escape

from gateway.contract.energy import NOTHING
from gateway.reports import breakdownview, energyview, figures, pageplots, trainingview
from gateway.reports.breakdown import Breakdown, Row
from gateway.reports.pagestyle import STYLE
from gateway.reports.plotdata import PageData
from gateway.reports.query import ENERGY, VIEWS, Dimension
from gateway.wording import moment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
ROWS_MAX = 2000  # a browser lays out so many in a blink; CSV and Parquet have all
FINDINGS_MAX = 50


def html(data: PageData, *, is_live: bool = False) -> str:
    """The page; `is_live` adds the form of filters that the gateway answers."""
    report = data.report
    empty = f'<div class="card empty">{escape(breakdownview.NOTHING)}.</div>'
    body = _body(data) if report.segments else empty + _trained(report)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="content-security-policy" content="{POLICY}"><title>Steelyard costs</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Costs</h1>"
        f'<p class="sub">{escape(_subtitle(report))}</p>{_form(data) if is_live else ""}{body}{_findings(report)}'
        "</main></body></html>\n"
    )


def _subtitle(report: Breakdown) -> str:
    when = filter(None, [breakdownview.when(report)])
    if not report.segments:
        return " · ".join([breakdownview.period(report) or "all of the ledger", *when])
    filters = [
        f"{name} {value}" for name, value in (("model", report.query.model), ("tenant", report.query.tenant)) if value
    ]
    parts = [f"{moment(report.from_ns)} to {moment(report.to_ns)}", f"view: {report.query.view}", *filters, *when]
    return figures.printable(" · ".join(parts))


def _body(data: PageData) -> str:
    report, plots = data.report, "".join(pageplots.cards(data))
    return f'{_tiles(report)}<div class="plots">{plots}</div>{_table(report)}{_energy(report)}{_training(report)}{_proof(report)}'


def _tiles(report: Breakdown) -> str:
    shown = report.rows
    cost, idle, rows = (sum(getattr(row, name) for row in shown) for name in ("cost_picousd", "idle_picousd", "rows"))
    requests, not_ok, boots = (sum(getattr(row, name) for row in shown) for name in ("requests", "not_ok", "boots"))
    per_1000 = f"{figures.MICRO.amount(round(cost * 1000 / rows))} µ$" if rows else "-"
    title = "shown, of a bill of " + figures.dollars(report.charged_picousd) if report.others_picousd else "bill"
    trend = report.trend
    before = figures.percent(trend.charged_picousd, trend.previous_picousd) if trend else "-"
    against = "against the period before"
    if trend and trend.periods.words:
        against = f"{trend.periods.words}, against the {trend.periods.kind} before"
    tiles = [
        (figures.dollars(cost), title),
        (before, against),
        (per_1000, "per 1,000 predictions, without training"),
        (f"{100 * idle / cost:.1f} %" if cost else "-", "idle"),
        (f"{requests:,}", f"requests, {not_ok:,} not ok"),
        (f"{boots:,}", "containers started"),
    ]
    if told := energyview.told(report):
        energy, carbon, per_1000 = told
        tiles += [
            (energy, f"of energy, {carbon} CO2e"),
            (f"{per_1000} CO2e", "per 1,000 predictions, without training"),
        ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="card tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles
        )
        + "</div>"
    )


def _table(report: Breakdown) -> str:
    by, scale = report.query.by, figures.scale(report.charged_picousd)
    has_trend = any(row.previous_picousd is not None for row in report.rows)
    heads = [
        f"cost {scale.unit}",
        "µ$ / 1,000",
        *["trend"] * has_trend,
        "idle %",
        f"direct {scale.unit}",
        f"shared {scale.unit}",
    ]
    heads += ["requests", "not ok", "rows", "vCPU s"]
    shown = [row for row in report.rows if breakdownview.is_worth_a_line(row)]
    rows = [_row(row, by, scale, has_trend) for row in shown[:ROWS_MAX]]
    hidden = len(shown) - ROWS_MAX
    cut = f'<p class="note">{hidden:,} more rows are in the other formats.</p>' if hidden > 0 else ""
    for name, cost, kind in (("others", report.others_picousd, ""), ("bill", report.charged_picousd, ' class="bill"')):
        if cost or name == "bill":
            rows.append(
                f'<tr{kind}><td class="text" colspan="{len(by)}">{name}</td><td>{escape(scale.amount(cost))}</td>'
                f"{'<td></td>' * (len(heads) - 1)}</tr>"
            )
    header = "".join(f'<th class="text">{name}</th>' for name in by) + "".join(
        f"<th>{escape(head)}</th>" for head in heads
    )
    return _listing(f"By {', '.join(by)}", header, rows, cut)


def _listing(title: str, header: str, rows: Sequence[str], note: str = "") -> str:
    return (
        f'<section class="card listing"><h2>{title}</h2>{note}<div class="wide"><table>'
        f"<thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _row(row: Row, by: Sequence[Dimension], scale: figures.Scale, has_trend: bool) -> str:
    numbers = [
        scale.amount(row.cost_picousd),
        figures.MICRO.amount(row.per_1000_rows_picousd),
        *([breakdownview.trend(row)] * has_trend),
        f"{100 * row.idle_picousd / row.cost_picousd:.1f}" if row.cost_picousd else "-",
        scale.amount(row.direct_picousd),
        scale.amount(row.shared_picousd),
        *(f"{count:,}" for count in (row.requests, row.not_ok, row.rows)),
        f"{row.cpu_ns / 10**9:,.3f}",
    ]
    names = "".join(f'<td class="text">{escape(breakdownview.label(row, name))}</td>' for name in by)
    return f"<tr>{names}{''.join(f'<td>{escape(number)}</td>' for number in numbers)}</tr>"


def _energy(report: Breakdown) -> str:
    energy, by = report.energy, report.query.by
    if energy is None:
        return ""
    units = energyview.amounts(report)
    lines = [
        ([breakdownview.label(row, name) for name in by], row.footprint, row.sci_per_1000_rows_ng, "")
        for row in filter(energyview.is_worth_a_line, report.rows[:ROWS_MAX])
    ]
    blank = [""] * (len(by) - 1)
    if not energy.others.is_nothing:
        lines.append((["others", *blank], energy.others, None, ""))
    lines.append((["all", *blank], energy.whole, None, ' class="bill"'))
    rows = []
    for names, footprint, sci, kind in lines:
        texts = "".join(f'<td class="text">{escape(name)}</td>' for name in names)
        numbers = "".join(f"<td>{escape(number)}</td>" for number in units.numbers(footprint or NOTHING, sci))
        rows.append(f"<tr{kind}>{texts}{numbers}</tr>")
    header = "".join(f'<th class="text">{name}</th>' for name in by)
    header += "".join(f"<th>{escape(head)}</th>" for head in units.heads)
    return _listing("Energy and carbon", header, rows, _notes(*energyview.basis(report), trainingview.scope(report)))


def _notes(*lines: str) -> str:
    return "".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def _training(report: Breakdown) -> str:
    return _amortized(report) + _trained(report)


def _trained(report: Breakdown) -> str:
    """Its energy; a card of notes alone where nobody asked for portions."""
    notes = _notes(*trainingview.notes(report))
    if report.energy is None or not (report.training or notes):
        return ""
    units = trainingview.units(report.training)
    rows = []
    for row in report.training:
        cells = "".join(f"<td>{escape(text)}</td>" for text in units.cells(row))
        rows.append(f'<tr><td class="text">{escape(trainingview.label(row))}</td>{cells}</tr>')
    title = "Energy and carbon of training, beside the rows"
    if not rows:
        return f'<section class="card listing"><h2>{title}</h2>{notes}</section>'
    header = '<th class="text">model</th>' + "".join(f"<th>{escape(head)}</th>" for head in units.heads)
    return _listing(title, header, rows, notes)


def _amortized(report: Breakdown) -> str:
    if not report.training:
        return ""
    rows = []
    for row in report.training:
        cells = "".join(f"<td>{escape(text)}</td>" for text in breakdownview.amortized(row))
        rows.append(f'<tr><td class="text">{escape(trainingview.label(row))}</td>{cells}</tr>')
    header = '<th class="text">model</th>' + "".join(f"<th>{name}</th>" for name in breakdownview.AMORTIZED)
    return _listing("Training, beside the bill", header, rows)


def _proof(report: Breakdown) -> str:
    if report.balanced:
        bill = figures.dollars(report.charged_picousd)
        text = f'<p><span class="good">Exact:</span> the rows add up to the bill of {bill}, to the pico-dollar.</p>'
    else:
        text = '<p class="bad">NOT BALANCED: the rows do not add up to the bill; do not trust these numbers.</p>'
    return f"<footer>{text}<p>{report.segments:,} segments of the ledger.</p></footer>"


def _findings(report: Breakdown) -> str:
    shown = sorted(report.findings, key=lambda finding: not finding.is_fault)[:FINDINGS_MAX]
    lines = "".join(
        f"<p{' class=bad' * finding.is_fault}>{'fault' if finding.is_fault else 'note'}: "
        f"{escape(figures.printable(finding.message))}</p>"
        for finding in shown
    )
    return f'<footer class="findings">{lines}</footer>' if lines else ""


def _form(data: PageData) -> str:
    query = data.report.query
    since, until = ("" if at is None else moment(at)[:16] for at in (query.since_ns, query.until_ns))
    common = ["model,version", "model", "tenant", "activity", "outcome", "day", "hour", "day,model", "hour,activity"]
    asked = ",".join(query.by)
    fields = [
        ("by", _select("by", [asked, *(name for name in common if name != asked)], asked)),
        ("view", _select("view", VIEWS, query.view)),
        ("energy", _select("energy", ENERGY, ENERGY[query.with_energy])),
        ("model", _select("model", ["", *data.models], query.model or "")),
        ("tenant", _select("tenant", ["", *data.tenants], query.tenant or "")),
        ("since, UTC", f'<input name="since" value="{since}" placeholder="2026-11-05T14:30">'),
        ("until, UTC", f'<input name="until" value="{until}" placeholder="2026-11-06">'),
    ]
    labels = "".join(f"<label>{name}{control}</label>" for name, control in fields)
    return f'<form class="card" method="get">{labels}<button>Show</button></form>'


def _select(name: str, values: Sequence[str], chosen: str) -> str:
    options = "".join(
        f'<option value="{escape(value)}"{" selected" * (value == chosen)}>{escape(figures.printable(value)) or "all"}</option>'
        for value in values
    )
    return f'<select name="{name}">{options}</select>'

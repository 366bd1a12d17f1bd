"""The cost report as one HTML page that needs nothing else: no script, no font, no request. From `plotdata`, to a string.

Every name in it comes from a bucket and is escaped; a policy in the page forbids whatever is not in it anyway.
"""

from collections.abc import Iterable, Sequence
from html import escape

from gateway.contract.energy import NOTHING
from gateway.reports import breakdownview, charts, energyview, figures
from gateway.reports.breakdown import Breakdown, Row
from gateway.reports.charts import Axis, Column, Part, Point
from gateway.reports.pagestyle import ACCOUNTS, STYLE
from gateway.reports.plotdata import PageData
from gateway.reports.query import VIEWS, Dimension
from gateway.wording import moment

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
ROWS_MAX = 2000  # a browser lays out so many in a blink; CSV and Parquet have all
FINDINGS_MAX = 50
MICRO = 10**6


def html(data: PageData, *, is_live: bool = False) -> str:
    """The page; `is_live` adds the form of filters that the gateway answers."""
    report = data.report
    body = _body(data) if report.segments else f'<div class="card empty">{escape(breakdownview.NOTHING)}.</div>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="content-security-policy" content="{POLICY}"><title>Steelyard costs</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Costs</h1>"
        f'<p class="sub">{escape(_subtitle(report))}</p>{_form(data) if is_live else ""}{body}{_findings(report)}'
        "</main></body></html>\n"
    )


def _subtitle(report: Breakdown) -> str:
    if not report.segments:
        return breakdownview.period(report) or "all of the ledger"
    filters = [
        f"{name} {value}" for name, value in (("model", report.query.model), ("tenant", report.query.tenant)) if value
    ]
    parts = [f"{moment(report.from_ns)} to {moment(report.to_ns)}", f"view: {report.query.view}", *filters]
    return figures.printable(" · ".join(parts))


def _body(data: PageData) -> str:
    report, plots = data.report, "".join(_plots(data))
    return f'{_tiles(report)}<div class="plots">{plots}</div>{_table(report)}{_energy(report)}{_training(report)}{_proof(report)}'


def _tiles(report: Breakdown) -> str:
    shown = report.rows
    cost, idle, rows = (sum(getattr(row, name) for row in shown) for name in ("cost_picousd", "idle_picousd", "rows"))
    requests, not_ok, boots = (sum(getattr(row, name) for row in shown) for name in ("requests", "not_ok", "boots"))
    per_1000 = f"{figures.MICRO.amount(round(cost * 1000 / rows))} µ$" if rows else "-"
    title = "shown, of a bill of " + figures.dollars(report.charged_picousd) if report.others_picousd else "bill"
    before = breakdownview.percent(report.charged_picousd, report.previous_charged_picousd)
    tiles = [
        (figures.dollars(cost), title),
        (before, "against the period before"),
        (per_1000, "per 1,000 predictions"),
        (f"{100 * idle / cost:.1f} %" if cost else "-", "idle"),
        (f"{requests:,}", f"requests, {not_ok:,} not ok"),
        (f"{boots:,}", "containers started"),
    ]
    if told := energyview.told(report):
        energy, carbon, per_1000 = told
        tiles += [(energy, f"of energy, {carbon} CO2e"), (f"{per_1000} CO2e", "per 1,000 predictions")]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="card tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles
        )
        + "</div>"
    )


def _plots(data: PageData) -> Iterable[str]:
    yield _card(
        f"Cost by {data.step} and account",
        "what models use below, idle on top",
        _over_time(data),
        _legend(data.over_time),
    )
    yield _card(
        "Cost of 1,000 predictions",
        "own and shared part, dearest first",
        _per_model(data.per_model),
        _keys((("direct", "direct"), ("shared", "shared"))),
    )
    yield _card("Idle against utilisation", "each dot is an hour of all containers", _idle(data), "")
    if data.latency:
        yield _card("Latency against cost", "95th percentile of queue and run; direct cost", _latency(data), "")


def _card(title: str, note: str, plot: str, legend: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{plot}{legend}</section>'


def _over_time(data: PageData) -> str:
    moments: dict[str, list[Row]] = {}
    for row in data.over_time:
        moments.setdefault(getattr(row, data.step), []).append(row)
    unit, picousd = _money(max(sum(row.cost_picousd for row in rows) for rows in moments.values()))
    stacks = []
    for at, rows in moments.items():
        parts = [
            Part(
                _kind(row.activity),
                row.cost_picousd / picousd,
                f"{at} {row.activity}: {figures.dollars(row.cost_picousd)}",
            )
            for row in sorted(rows, key=_stacked)
        ]
        stacks.append(Column(at[5:10] if data.step == "day" else f"{at[5:10]} {at[11:16]}", tuple(parts)))
    return charts.columns(stacks, Axis(unit), title=f"cost by {data.step} and account in {unit}")


def _per_model(found: Sequence[Row]) -> str:
    rows = sorted((row for row in found if row.rows), key=lambda row: -(row.per_1000_rows_picousd or 0))
    if not rows:
        return '<p class="note">No prediction was answered in this period.</p>'
    bars = [
        Column(
            f"{figures.printable(row.model or '')}@{row.version}",
            tuple(
                Part(
                    kind,
                    cost * 1000 / row.rows / MICRO,
                    f"{kind}: {figures.MICRO.amount(round(cost * 1000 / row.rows))} µ$",
                )
                for kind, cost in (("direct", row.direct_picousd), ("shared", row.shared_picousd))
            ),
        )
        for row in rows
    ]
    return charts.bars(bars, Axis("µ$ per 1,000 predictions"), title="cost of a thousand predictions by model")


def _idle(data: PageData) -> str:
    dots = [
        Point(
            100 * hour.used,
            100 * hour.idle,
            f"{hour.hour}: {100 * hour.used:.1f} % used, {100 * hour.idle:.1f} % of the bill idle",
        )
        for hour in data.idle
    ]
    return charts.points(
        dots,
        Axis("vCPU time used, %", 100),
        Axis("idle, % of bill", 100),
        title="idle share of the bill against vCPU utilisation",
    )


def _latency(data: PageData) -> str:
    dots = [
        Point(
            row.p95_ns / 1e6,
            row.cost_picousd * 1000 / MICRO,
            f"{figures.printable(row.model)}@{row.version}: {row.requests:,} requests, median {row.p50_ns / 1e6:.2f} ms, "
            f"95th percentile {row.p95_ns / 1e6:.2f} ms, {figures.dollars(row.cost_picousd)} each",
            f"{figures.printable(row.model)}@{row.version}",
        )
        for row in data.latency
    ]
    return charts.points(
        dots, Axis("95th percentile, ms"), Axis("µ$ per 1,000 requests"), title="latency against direct cost"
    )


def _money(largest_picousd: int) -> tuple[str, int]:
    """The unit of an axis and its pico-dollars."""
    for unit, picousd in (("$", 10**12), ("m$", 10**9), ("µ$", 10**6), ("n$", 10**3)):
        if largest_picousd >= picousd:
            return unit, picousd
    return "p$", 1


def _stacked(row: Row) -> int:
    return ACCOUNTS.index(_kind(row.activity))


def _kind(activity: str | None) -> str:
    return activity if activity in ACCOUNTS else "unattributed"


def _legend(rows: Sequence[Row]) -> str:
    present = {_kind(row.activity) for row in rows if row.cost_picousd}
    return _keys((account, account) for account in ACCOUNTS if account in present)


def _keys(names: Iterable[tuple[str, str]]) -> str:
    return (
        '<div class="legend">'
        + "".join(f'<span><i class="k-{kind}"></i>{name}</span>' for kind, name in names)
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
    note = "".join(f'<p class="note">{escape(line)}</p>' for line in energyview.basis(report))
    return _listing("Energy and carbon", header, rows, note)


def _training(report: Breakdown) -> str:
    if not report.training:
        return ""
    rows = []
    for row in report.training:
        amounts = (row.cost_picousd, row.earlier_picousd, row.expensed_picousd, row.remaining_picousd)
        cells = "".join(f"<td>{'unpriced' if one is None else escape(figures.dollars(one))}</td>" for one in amounts)
        rows.append(f'<tr><td class="text">{escape(figures.printable(row.model))}@{row.version}</td>{cells}</tr>')
    header = '<th class="text">model</th><th>training</th><th>earlier</th><th>this period</th><th>remaining</th>'
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

"""The cost page's plots, each a card: what `charts` and `lanes` draw of `plotdata`, in units for the eye. `page` calls it."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from gateway.contract.energy import Span
from gateway.reports import charts, energyview, figures, lanes
from gateway.reports.breakdown import Row
from gateway.reports.breakeven import Standing
from gateway.reports.charts import Axis, Column, Part, Point
from gateway.reports.finding import ahead_picousd
from gateway.reports.lanes import Lane
from gateway.reports.pagestyle import ACCOUNTS
from gateway.reports.plotdata import PageData

MICRO = 10**6


def cards(data: PageData) -> Iterator[str]:
    """A card for each plot that there is something to draw in."""
    yield _card(
        f"Cost by {data.step} and account",
        f"what models use below, idle on top{_ahead(data)}",
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
    if data.standings:
        yield _card(
            "CPU against GPU",
            "dot: the last day's traffic, its line: up to the busiest hour; list prices",
            _standings(data.standings),
            _keys(_SIDES),
        )
    if any(row.sci_per_1000_rows_ng for row in data.per_model):
        has_training = bool(_trained(data))
        yield _card(
            "Carbon of 1,000 predictions",
            f"of use and of making the machines; modelled; training is {'on top' if has_training else 'not in'}",
            _carbon(data),
            _keys((("direct", "use"), ("shared", "making"), ("trained", "training"))[: 2 + has_training]),
        )


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


def _ahead(data: PageData) -> str:
    """What is billed ahead must not look lost."""
    ahead = ahead_picousd(data.report.findings)
    return f"; unattributed: {figures.dollars(ahead)} of it billed ahead for containers that still run" if ahead else ""


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


_SIDES = (
    ("cpu", "CPU is cheaper"),
    ("perhaps", "depends on what a GPU answers, assumed"),
    ("gpu", "GPU is cheaper"),
)


def _standings(found: Sequence[Standing]) -> str:
    rows = [_lane(one, figures.printable(f"{one.demand.model}@{one.demand.version}")) for one in found]
    return lanes.draw(rows, "requests a second", title="traffic against the rate from which a GPU costs less")


def _lane(one: Standing, name: str) -> Lane:
    demand, pays = one.demand, "no GPU pays"
    if one.perhaps_rps is not None:
        pays = f"a GPU {'pays' if one.is_measured else 'may pay'} from {_rate(one.perhaps_rps)}"
    perhaps, surely = (
        "never" if rate is None else f"from {_rate(rate)} on: {gpu}"
        for rate, gpu in ((one.perhaps_rps, one.perhaps_gpu), (one.surely_rps, one.surely_gpu))
    )
    known = "measured by the training job" if one.is_measured else "an assumed range"
    return Lane(
        name,
        f"{_rate(demand.mean_rps)}, peak {_rate(demand.peak_rps)}; {pays}",
        demand.mean_rps,
        demand.peak_rps,
        one.perhaps_rps,
        one.surely_rps,
        (
            f"{name} on {one.cpu}: {demand.request_cpu_ns / 1e6:.3g} ms of CPU a request, HTTP included",
            f"a GPU at the upper end of {known} pays {perhaps}",
            f"a GPU at the lower end of {known} pays {surely}",
        ),
    )


def _rate(rps: float) -> str:
    return f"{rps:,.0f}/s" if rps >= 100 else f"{rps:.2g}/s"


def _carbon(data: PageData) -> str:
    rows = [row for row in data.per_model if row.rows and row.footprint]
    trained = _trained(data)
    columns = [(row, _emitted(row, trained.get((row.model or "", row.version or 0)))) for row in rows]
    columns.sort(key=lambda column: -sum(per_1000.value for _, per_1000 in column[1]))
    unit = energyview.grams(max(sum(per_1000.value for _, per_1000 in parts) for _, parts in columns))
    bars = [
        Column(
            f"{figures.printable(row.model or '')}@{row.version}",
            tuple(Part(kind, per_1000.value / unit[1], _ends(kind, per_1000, unit)) for kind, per_1000 in parts),
        )
        for row, parts in columns
    ]
    axis = Axis(f"{unit[0]} CO2e per 1,000 predictions")
    return charts.bars(bars, axis, title="carbon of a thousand predictions by model")


def _trained(data: PageData) -> dict[tuple[str, int], Span]:
    """What training adds to a thousand predictions, by version; empty where it is not told in portions, or not known."""
    scores = {
        (row.model, row.version): row.energy.training_sci_per_1000_rows_ng for row in data.report.training if row.energy
    }
    return {version: span for version, span in scores.items() if span is not None}


def _emitted(row: Row, trained: Span | None) -> list[tuple[str, Span]]:
    """Nanograms of a thousand predictions."""
    assert row.footprint is not None
    parts = [("direct", row.footprint.operational_ng), ("shared", row.footprint.embodied_ng)]
    emitted = [
        (kind, Span(*(round(ng * 1000 / row.rows) for ng in (span.low, span.value, span.high)))) for kind, span in parts
    ]
    return emitted if trained is None else [*emitted, ("trained", trained)]


_EMITTED = {"direct": "use", "shared": "making the machines", "trained": "training, its part of this period"}


def _ends(kind: str, per_1000: Span, unit: tuple[str, int]) -> str:
    low, value, high = (f"{ng / unit[1]:.3g}" for ng in (per_1000.low, per_1000.value, per_1000.high))
    return f"{_EMITTED[kind]}: {value} {unit[0]}, {low} to {high}"


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

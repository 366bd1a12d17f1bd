"""An `Advice` for people: tables on a terminal, aligned plain text in a pipe. The JSON is the struct itself."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.advice import functions
from gateway.advice.accuracy import sentence
from gateway.advice.advised import Advice, Option, Promise
from gateway.advice.wording import dollars, duration, rate
from gateway.contract.energy import Span

NG_PER_G = 10**9


def render(advice: Advice, console: Console) -> None:
    """Nothing in it can be taken for markup; a number is never cut."""
    measured = advice.measured
    _say(console, f"{measured.model}@{measured.version} {measured.variant} on this host ({measured.cpu})", "bold")
    console.print(_cells(advice), crop=False)
    _say(console, _served(advice))
    _say(console, "\nUnder rising load, simulated")
    console.print(_loads(advice), crop=False)
    if advice.judged:
        _say(console, f"quality as recorded: {sentence(advice.judged, measured.variant)}")
    if not measured.is_real:
        _say(console, "note: measured on zeros; the artifact carries no recorded inputs", "yellow")
    for words in advice.disagreements:
        _say(console, f"note: {words}", "yellow")
    _say(console, f"\n{_traffic(advice)}")
    console.print(_options(advice), crop=False)
    _notes(advice, console)
    _say(console, "\nIf something is not so", "bold")
    console.print(_scenarios(advice), crop=False)
    _zero(advice, console)
    _promises(advice, console)
    _say(console, f"\nconfidence: {advice.tier} ({advice.tier_reason})")
    _say(console, f"verdict: {advice.verdict}", "bold")


def _cells(advice: Advice) -> Table:
    table = _columns("batch", "CPU per run", "CPU per row", "p50", "p99", "runs")
    for cell in advice.measured.cells:
        times = (cell.cpu_ns, cell.row_cpu_ns, cell.p50_ns, cell.p99_ns)
        table.add_row(cell.batch, *map(duration, times), f"{cell.runs:,}")
    return table


def _served(advice: Advice) -> str:
    measured, served, capacity = advice.measured, advice.measured.served, advice.capacity
    return (
        f"the session alone: built in {duration(measured.build_ns)}, {measured.resident_bytes / 2**20:.1f} MiB\n"
        f"one gateway over HTTP: {duration(served.request_cpu_ns)} of CPU a request, {served.resident_bytes / 2**20:.0f} MiB, cold "
        f"start {duration(served.cold_start_ns)}\n"
        f"one worker: {rate(capacity.saturated_rps)} saturated, {rate(capacity.objective_rps)} with 99 of 100 within "
        f"{duration(advice.wish.objective_ns)}, {rate(capacity.usable_rps)} at the scaler's target of {advice.wish.target:.0%}"
    )


def _loads(advice: Advice) -> Table:
    table = _columns("workers", "load", "requests", "p50", "p95", "p99")
    for load in advice.loads:
        quantiles = map(duration, (load.p50_ns, load.p95_ns, load.p99_ns))
        table.add_row(f"{load.workers}", f"{load.share:.0%}", rate(load.rps), *quantiles)
    return table


def _traffic(advice: Advice) -> str:
    traffic = advice.traffic
    silent = f", silent {traffic.silent_share:.0%} of the time" if traffic.silent_share else ""
    return (
        f"Traffic of {traffic.source}: {rate(traffic.mean_rps)} on average, {rate(traffic.peak_rps)} at its peak{silent}; "
        f"list prices of {advice.region}"
    )


def _options(advice: Advice) -> Table:
    usable = [option for option in advice.options if option.million_picousd is not None]
    cheapest = min((option.million_picousd or 0 for option in usable), default=0)
    ranges = ("from", "to") if any(map(_is_range, usable)) else ()
    table = _columns(
        "offer", "$/million", *ranges, "full", "$/month", "replicas", "each", "g CO2e/million", "pays from", "basis",
    )  # fmt: skip
    for option in sorted(usable, key=lambda option: option.million_picousd or 0):
        table.add_row(
            *_option(option, has_ranges=bool(ranges)), style="bold" if option.million_picousd == cheapest else ""
        )
    return table


def _is_range(option: Option) -> bool:
    return option.million_low_picousd != option.million_high_picousd


def _option(option: Option, *, has_ranges: bool) -> tuple[str, ...]:
    ends = (option.million_low_picousd, option.million_high_picousd) if has_ranges else ()
    peak = f"{option.replicas_min:,}-{option.replicas_peak:,}" if option.replicas_min != option.replicas_peak else ""
    return (
        option.name,
        dollars(option.million_picousd),
        *(dollars(end) if _is_range(option) else "" for end in ends),
        dollars(option.busy_million_picousd),
        dollars(option.month_picousd),
        peak or f"{option.replicas_peak:,}",
        rate(option.replica_rps),
        grams_per_million(option.sci_thousand_ng),
        _pays_from(option),
        option.tier,
    )


def _pays_from(option: Option) -> str:
    if option.kind != "gpu":
        return ""
    if option.break_even_rps is None:
        return "never"
    return rate(option.break_even_rps) + ("" if option.is_sure else "?")


def grams_per_million(sci: Span | None) -> str:
    """`1.46 (1.23-3.39)`, `197k (169k-429k)`: a range, because it is modelled."""
    if sci is None:
        return "-"
    value, low, high = (ng * 1000 / NG_PER_G for ng in (sci.value, sci.low, sci.high))
    return f"{_short(value)} ({_short(low)}-{_short(high)})"


def _short(value: float) -> str:
    """Three significant digits."""
    for suffix, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _notes(advice: Advice, console: Console) -> None:
    _say(console, "full: on replicas that are always full; each: what one answers at the scaler's target")
    _say(console, "grams are modelled (SCI), low to high")
    _say(console, "? only if the GPU answers that many: its throughput is assumed")
    clauses = [(option.name, option.note.split("; ")) for option in advice.options]
    for clause in dict.fromkeys(clause for _, found in clauses for clause in found):
        names = ", ".join(name for name, found in clauses if clause in found)
        _say(console, f"{names}: {clause}")


def _scenarios(advice: Advice) -> Table:
    table = _columns("case", "cheapest CPU", "$ per million", "cheapest GPU", "$ per million", "cheaper")
    for one in advice.scenarios:
        costs = dollars(one.cpu_million_picousd), dollars(one.gpu_million_picousd)
        table.add_row(one.what, one.cpu or "-", costs[0], one.gpu or "-", costs[1], one.winner.upper() or "-")
    return table


def _zero(advice: Advice, console: Console) -> None:
    zero = advice.zero
    if zero is None:
        return
    assumed = f"{advice.wish.provision_ns / 1e9:g} s of it assumed for the platform"
    _say(
        console,
        f"\n{zero.offer}, replicas kept: {dollars(zero.kept_month_picousd)} a month; to zero when nothing comes: "
        f"{dollars(zero.zero_month_picousd)}, with {zero.wakes_per_month:,.0f} cold starts a month of "
        f"{duration(zero.cold_start_ns)} and {dollars(zero.wake_picousd)} each ({assumed})",
    )


def _promises(advice: Advice, console: Console) -> None:
    if advice.promise is not None:
        _say(console, f"simulated around its peak on {_promise(advice.promise)}")
    if advice.keeper is not None:
        _say(console, f"what keeps the objective: {_promise(advice.keeper)}")


def _promise(promise: Promise) -> str:
    words = (
        f"{promise.offer}: {promise.requests:,} requests, p50 {duration(promise.p50_ns)}, p95 {duration(promise.p95_ns)}, p99 "
        f"{duration(promise.p99_ns)} ({'within' if promise.holds else 'OVER'} the objective), at most {promise.replicas_peak:,} "
        f"at once, {promise.cold_starts:,} cold starts of {duration(promise.cold_start_ns)} ({promise.cold_share:.2%} of requests)"
    )
    kept = promise.keep_alive
    if kept is None:
        return f"{words}, {promise.floor:,} kept, {promise.utilisation or 0:.0%} busy"
    start_s, low_s, high_s = (ns / 1e9 for ns in (functions.START_NS, functions.START_LOW_NS, functions.START_HIGH_NS))
    return (
        f"{words}\nASSUMED: {start_s:g} s of a cold start for the platform ({low_s:g} to {high_s:g}); an idle sandbox kept for "
        f"{_minutes(kept.assumed_ns)} ({_minutes(kept.low_ns)}: {kept.cold_share_high:.2%} cold, p99 {duration(kept.p99_high_ns)}; "
        f"{_minutes(kept.high_ns)}: {kept.cold_share_low:.2%} cold, p99 {duration(kept.p99_low_ns)})"
    )


def _minutes(time_ns: int) -> str:
    return f"{time_ns / 60e9:g} min"


def _columns(name: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column(name, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style=style), soft_wrap=True)

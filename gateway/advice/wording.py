"""The one sentence, and how this room writes money, times and rates for people."""

from decimal import Decimal

from gateway.advice.advised import Option, Promise, Zero
from gateway.advice.scenarios import Scenario
from gateway.advice.traffic import Traffic
from gateway.contract.prices import PICO_PER_USD

SAVING_TOLD = 0.05
"""Of the month's cost: less is not worth a cold start."""


COLD_TOLD = 0.01
"""Of callers: from there on a cold start is what the 99th percentile sees."""


def verdict(
    options: tuple[Option, ...],
    table: tuple[Scenario, ...],
    zero: Zero | None,
    promise: Promise | None,
    keeper: Promise | None,
    traffic: Traffic,
    objective_ns: int,
) -> str:
    """Ends with what would change it."""
    base = table[0]
    sentence = {"cpu": _cpu, "gpu": _gpu, "undecided": _undecided, "": _nothing}[base.winner](base, options)
    stays = base.winner in {"cpu", "undecided"} and zero is not None and base.cpu == zero.offer
    if zero and stays and zero.silent_share and zero.saves > SAVING_TOLD:
        sentence += (
            f"; turn it off while nothing comes ({zero.silent_share:.0%} of the time): {zero.offer} at zero saves "
            f"{zero.saves:.0%} of {dollars(zero.kept_month_picousd)} a month, and a first caller waits "
            f"{duration(zero.cold_start_ns)}"
        )
    sentence += _latency(base, promise, keeper, objective_ns)
    changed = [other.what for other in table[1:] if other.winner != base.winner]
    if changed and base.winner:
        sentence += f"; not so with {' or '.join(changed)}"
    return sentence + "."


def _latency(base: Scenario, promise: Promise | None, keeper: Promise | None, objective_ns: int) -> str:
    """Nothing where the offer that is recommended keeps the objective for sure."""
    if promise is None:
        return (
            f"; measure its latency before you promise {duration(objective_ns)}: nobody has"
            if base.winner == "gpu"
            else ""
        )
    if promise.holds:
        kept = promise.keep_alive
        if kept is None or kept.p99_high_ns <= objective_ns:
            return ""
        return (
            f"; but were idle sandboxes kept for {duration(kept.low_ns)} only, 1 in 100 callers would wait "
            f"{duration(kept.p99_high_ns)}, longer than the objective of {duration(objective_ns)}"
        )
    cold = f" ({promise.cold_share:.0%} find it cold)" if promise.cold_share > COLD_TOLD else ""
    missed = (
        f"; but {promise.offer} misses the objective of {duration(objective_ns)}: around its busiest time 1 in 100 callers would "
        f"wait {duration(promise.p99_ns)}{cold}"
    )
    if keeper is None:
        return f"{missed}, and nothing else that was simulated keeps it"
    replicas = f" with {keeper.floor:,} kept" if keeper.floor else ""
    costs = f"{dollars(keeper.month_picousd)} a month instead of {dollars(promise.month_picousd)}"
    return f"{missed}; {keeper.offer}{replicas} keeps it, for {costs}"


def _cpu(base: Scenario, options: tuple[Option, ...]) -> str:
    words = f"Stay on CPUs: {base.cpu} at {dollars(base.cpu_million_picousd)} a million"
    if any(option.name == base.cpu and option.kind == "function" for option in options):
        words += " and nothing while nobody calls"
    rates = [option.break_even_rps for option in options if option.break_even_rps]
    if not base.gpu:
        return f"{words}; no GPU can be compared"
    words += f", and {base.gpu}, the cheapest GPU, at {dollars(base.gpu_million_picousd)}"
    return words + (f"; a GPU may pay from {rate(min(rates))} on" if rates else "; no rate makes a GPU pay")


def _gpu(base: Scenario, _: tuple[Option, ...]) -> str:
    cpu = f"{base.cpu} costs {dollars(base.cpu_million_picousd)}" if base.cpu else "no CPU offer meets the objective"
    return f"Use a GPU: {base.gpu} at {dollars(base.gpu_million_picousd)} a million, while {cpu}"


def _undecided(base: Scenario, options: tuple[Option, ...]) -> str:
    option = next(option for option in options if option.name == base.gpu)
    return (
        f"Measure a GPU before you decide: {base.cpu} costs {dollars(base.cpu_million_picousd)} a million, and {base.gpu} between "
        f"{dollars(option.million_low_picousd)} and {dollars(option.million_high_picousd)}, since its throughput is assumed"
    )


def _nothing(_: Scenario, options: tuple[Option, ...]) -> str:
    reason = next((option.note for option in options if option.note), "")
    return f"Nothing here can serve this within the objective ({reason})"


def dollars(picousd: int | None) -> str:
    """`$1,235` from a thousand on, `$12.57` from a dollar on, else three significant digits: `$0.0255`."""
    if picousd is None:
        return "-"
    value = Decimal(picousd) / PICO_PER_USD
    if value >= 1000:
        return f"${value:,.0f}"
    if value >= 1 or not picousd:
        return f"${value:,.2f}"
    return f"${value:.{2 - value.adjusted()}f}"


def duration(time_ns: float) -> str:
    """Three significant digits of the unit that suits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if time_ns >= size:
            return f"{time_ns / size:.3g} {unit}" if time_ns < 1000 * size else f"{time_ns / size:,.0f} {unit}"
    return f"{time_ns:.0f} ns"


def rate(rps: float) -> str:
    """Requests a second."""
    return f"{rps:,.0f}/s" if rps >= 100 else f"{rps:.3g}/s"

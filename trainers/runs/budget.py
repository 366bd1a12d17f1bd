"""How long an attempt may go on before the run has cost what it may. Arithmetic only; whoever trains asks and stops itself."""

from fractions import Fraction

from gateway.contract.prices import NS_PER_HOUR, PICO_PER_USD
from gateway.wording import usd
from trainers.errors import SpecError


def seconds_left(
    *, max_cost_picousd: int | None, earlier_picousd: int | None, usd_per_hour: str | None, reserve_s: float
) -> float | None:
    """Seconds from the attempt's start in which it may take steps; None without a cap, 0.0 when nothing is left.

    `earlier_picousd` is what earlier attempts cost, `reserve_s` what finishing takes (saving, exporting the best so far). Raises
    `SpecError` for a cap on something whose price is unknown: it could not be kept.
    """
    if max_cost_picousd is None:
        return None
    if usd_per_hour is None or earlier_picousd is None:
        raise SpecError(
            "max_cost_usd needs the machine's price per hour; name one from the price book with --priced-as"
        )
    left = Fraction(max_cost_picousd - earlier_picousd) / (Fraction(usd_per_hour) * PICO_PER_USD) * NS_PER_HOUR / 10**9
    return max(0.0, float(left) - reserve_s)


def check(
    *,
    max_cost_picousd: int | None,
    earlier_picousd: int | None,
    usd_per_hour: str | None,
    reserve_s: float,
    least_s: float,
) -> float | None:
    """`seconds_left`, or `SpecError` when a fresh run's cap does not even reach for `least_s`, say one checkpoint interval."""
    left = seconds_left(
        max_cost_picousd=max_cost_picousd,
        earlier_picousd=earlier_picousd,
        usd_per_hour=usd_per_hour,
        reserve_s=reserve_s,
    )
    if left is not None and left < least_s and not earlier_picousd:
        assert max_cost_picousd is not None
        raise SpecError(
            f"max_cost_usd {usd(max_cost_picousd)} pays for {left:.0f} s of training at {usd_per_hour} USD per hour, after "
            f"{reserve_s:.0f} s kept for finishing; at least {least_s:.0f} s are needed, or nothing would be saved"
        )
    return left

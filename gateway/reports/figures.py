"""How a report writes its numbers: money, durations, sizes. Exact arithmetic; rounding happens once, here, for the eye."""

from decimal import Decimal

import msgspec

from gateway.contract.prices import PICO_PER_USD

PICO_PER_MICRO = 10**6


class Scale(msgspec.Struct, frozen=True):
    """The unit of a whole column, so that its numbers can be compared and added by eye."""

    unit: str
    picousd: int
    decimals: int

    def amount(self, picousd: int | None) -> str:
        """`2,553.30`; `<0.01` or `>-0.01` for what is not nothing but rounds to it; `-` where there is no amount."""
        if picousd is None:
            return "-"
        step = Decimal(1).scaleb(-self.decimals)
        value = (Decimal(picousd) / self.picousd).quantize(step)
        if picousd and not value:
            return f"<{step}" if picousd > 0 else f">-{step}"
        return f"{value:,}"


MICRO = Scale("µ$", PICO_PER_MICRO, 2)
USD = Scale("$", PICO_PER_USD, 4)


def scale(bill_picousd: int) -> Scale:
    """Dollars from one dollar on; below, millionths: a short run is all zeros in dollars."""
    return USD if abs(bill_picousd) >= PICO_PER_USD else MICRO


def dollars(picousd: int) -> str:
    """`$1,234.57` from a dollar on, else four significant digits: `$0.002553`; `-$0.002553` below zero."""
    if picousd < 0:
        return f"-{dollars(-picousd)}"
    value = Decimal(picousd) / PICO_PER_USD
    if not picousd:
        return "$0"
    if value >= 1:
        return f"${value:,.2f}"
    return f"${value:.{3 - value.adjusted()}f}"


def percent(now_picousd: int, before_picousd: int | None) -> str:
    """`+12.5 %`; `new` where there was nothing before; `-` where nothing can be compared."""
    if before_picousd is None or now_picousd == before_picousd == 0:
        return "-"
    if not before_picousd:
        return "new"
    return f"{Decimal(100 * (now_picousd - before_picousd)) / before_picousd:+,.1f} %"


def duration(time_ns: int) -> str:
    """In seconds up to two minutes, in minutes up to two hours, then in hours."""
    seconds = Decimal(time_ns) / 10**9
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h"


def watt_hours(energy_nj: int) -> str:
    """In kWh from one on, else in Wh: `0.217 Wh`."""
    value = Decimal(energy_nj) / (3_600 * 10**9)
    return f"{value / 1000:,.3f} kWh" if value >= 1000 else f"{value:,.3f} Wh"


def size(vcpu_milli: int, memory_bytes: int) -> str:
    """`2 vCPU, 4 GB`, with GB of 1024 MiB as Fargate sells them."""
    return f"{vcpu_milli / 1000:g} vCPU, {memory_bytes / 2**30:.3g} GB"


def printable(text: str) -> str:
    """Names come from a bucket: none may move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)

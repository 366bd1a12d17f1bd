"""A meter on a manual clock, for a container of 2 vCPUs and 4 GiB on Fargate that boots 10 minutes before an hour ends."""

from fractions import Fraction

from gateway.accounting.container import Container
from gateway.accounting.meter import Meter
from gateway.accounting.statement import Interval, Statement, settle
from gateway.accounting.usage import Usage
from gateway.contract import prices
from gateway.contract.ledger import Outcome, Posting
from tests.support.manualclock import ManualClock

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
GIB = 1 << 30
BOOT_NS = 1_793_880_000 * SECOND_NS + 3000 * SECOND_NS  # 2026-11-05T12:50:00Z
BOOK = prices.load()
CONTAINER = Container("c0", BOOT_NS, "fargate-x86", vcpu_milli=2000, memory_bytes=4 * GIB)
VCPU, MEMORY = "fargate-x86/vcpu", "fargate-x86/memory"
CPU_RATE = Fraction("0.04048") * 10**12 / HOUR_NS
"""Pico-dollars of one CPU-nanosecond, written down a second time."""


def meter(clock: ManualClock, *, detail_rows_max: int = 100_000, ahead_ns: int = SECOND_NS) -> Meter:
    return Meter(CONTAINER, BOOK, clock, detail_rows_max=detail_rows_max, ahead_ns=ahead_ns)


def charge(meter: Meter, cpu_ns: int, *, model: str = "digits", outcome: Outcome = "ok", request_id: str = "r") -> int:
    return meter.charge(request_id=request_id, model=model, version=1, outcome=outcome, usage=Usage(cpu_ns, rows=2))


def statement(meter: Meter, interval: Interval) -> Statement:
    return settle(interval, vcpu=meter.vcpu, memory=meter.memory)


def close(meter: Meter, clock: ManualClock) -> Statement:
    """The statement of the interval that ends now."""
    meter.close_interval(clock.now_ns())
    return statement(meter, meter.closed.pop())


def bill_picousd(age_ns: int) -> dict[str, int]:
    """What a life of this length costs, from the price list and nothing else."""
    hours = Fraction(age_ns, HOUR_NS)
    return {
        VCPU: round(Fraction("0.04048") * 2 * hours * 10**12),
        MEMORY: round(Fraction("0.004445") * 4 * hours * 10**12),
    }


def life_picousd(age_ns: int) -> dict[str, int]:
    """What Fargate bills in the end for a life of this length: whole seconds, a minute at least."""
    return bill_picousd(max(60, -(-age_ns // SECOND_NS)) * SECOND_NS)


def costs(postings: tuple[Posting, ...], account: str) -> int:
    return sum(posting.cost_picousd for posting in postings if posting.account == account)

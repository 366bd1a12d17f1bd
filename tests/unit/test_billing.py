"""Origin charges: what a platform's rule makes of a life, in any windows the same; and what is posted is that, sku by sku."""

import itertools
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.container import Container
from gateway.accounting.meter import Meter
from gateway.accounting.statement import settle
from gateway.accounting.tariff import tariff
from gateway.accounting.usage import Usage
from gateway.contract import prices
from gateway.contract.prices import NS_PER_HOUR, PICO_PER_USD, Platform
from tests.support import wholelife
from tests.support.manualclock import ManualClock
from tests.support.wholelife import Life

MS, SECOND_NS, GIB = 10**6, 10**9, 1 << 30
BOOT_NS = 1_793_883_000 * SECOND_NS  # 2026-11-05T12:50:00Z
BOOKS = prices.shipped()
PLATFORMS = [(book, platform) for book in BOOKS for platform in book.platforms]
LIFETIME = [(book, platform) for book, platform in PLATFORMS if platform.billed == "lifetime"]
LAMBDA = Platform("lambda", memory_sku="memory", billed="invocations", granularity_ms=1)
CLOUD_RUN = Platform("run", vcpu_sku="vcpu", memory_sku="memory", billed="requests", granularity_ms=100)

sizes = st.tuples(st.integers(1, 200_000), st.integers(1 << 20, 1 << 42))
moments = st.integers(0, 3 * NS_PER_HOUR)


def lived(*answered: tuple[float, float], ready_ms: float = 0, ended_ms: float = 10_000) -> Life:
    spans = tuple((BOOT_NS + round(begun * MS), BOOT_NS + round(ended * MS)) for begun, ended in answered)
    return Life(BOOT_NS, BOOT_NS + round(ready_ms * MS), BOOT_NS + round(ended_ms * MS), spans)


@pytest.mark.parametrize(
    ("name", "seconds", "billed_s"),
    [
        ("fargate-x86", 1.2, 60),
        ("fargate-arm", 60, 60),
        ("fargate-spot-x86", 60.001, 61),
        ("ec2-c7i.large", 3599.5, 3600),
        ("cloud-run-instances", 61.01, 61.1),
        ("machine", 1.25, 1.25),
    ],
)
def test_a_life_is_billed_by_its_platforms_steps_and_minimum(name: str, seconds: float, billed_s: float) -> None:
    rule = prices.shipped_for(name).platform(name)
    assert wholelife.billed_ns(rule, lived(ended_ms=seconds * 1000)) == round(billed_s * SECOND_NS)


def test_every_invocation_counts_by_itself_in_whole_milliseconds_and_so_does_its_start() -> None:
    life = lived((900, 900.2), (900, 902.5), (2000, 2001), ready_ms=812.1)
    assert wholelife.billed_ns(LAMBDA, life) == (813 + 1 + 3 + 1) * MS


def test_requests_at_once_are_one_stretch_and_silence_is_free() -> None:
    life = lived((1000, 1150), (1100, 1210), (5000, 5001), ready_ms=310)
    assert wholelife.billed_ns(CLOUD_RUN, life) == (400 + 300 + 100) * MS


def test_what_lasts_is_billed_as_it_lasts_and_rounded_up_when_it_is_over() -> None:
    life = lived((1000, 1150), ready_ms=100)
    for rule in (CLOUD_RUN, LAMBDA):
        assert wholelife.billed_ns(rule, life, BOOT_NS + 1149 * MS) == (100 + 149) * MS
    assert wholelife.billed_ns(CLOUD_RUN, life, BOOT_NS + 1150 * MS) == (100 + 200) * MS


def test_no_moment_is_billed_twice() -> None:
    """Ten answers of 1 ms within 100 ms are one step and not ten; the next one after that is another."""
    life = lived(*((1000 + 11 * index, 1001 + 11 * index) for index in range(10)), (1101, 1102))
    assert wholelife.billed_ns(CLOUD_RUN, life) == 200 * MS


def test_shutting_down_is_billed_by_cloud_run_and_not_by_lambda() -> None:
    life = Life(BOOT_NS, BOOT_NS, BOOT_NS + 10_000 * MS, (), BOOT_NS + 9_950 * MS)
    assert [wholelife.billed_ns(rule, life) for rule in (CLOUD_RUN, LAMBDA)] == [100 * MS, 0]


@pytest.mark.parametrize(("book", "platform"), PLATFORMS, ids=lambda value: value.name)
@given(
    size=sizes,
    ended=moments,
    cuts=st.lists(moments, max_size=6),
    spans=st.lists(st.tuples(moments, st.integers(0, 10**11)), max_size=8),
)
def test_windows_of_any_length_add_up_to_the_life(
    book: prices.PriceBook,
    platform: Platform,
    size: tuple[int, int],
    ended: int,
    cuts: list[int],
    spans: list[tuple[int, int]],
) -> None:
    ended_ns = BOOT_NS + ended
    answered = tuple((BOOT_NS + at, min(BOOT_NS + at + length, ended_ns)) for at, length in spans if at <= ended)
    life = Life(BOOT_NS, min(BOOT_NS + SECOND_NS, ended_ns), ended_ns, answered)
    boundaries = [BOOT_NS, *sorted(BOOT_NS + cut for cut in cuts if cut < ended), ended_ns]
    for provisioned in Container("c", BOOT_NS, platform.name, *size).provisioned(platform):
        priced = tariff(book, provisioned)
        windows = wholelife.charges(platform, life, priced, boundaries)
        before = priced.billed_picousd(wholelife.billed_ns(platform, life, BOOT_NS))
        assert min(windows) >= 0
        assert before + sum(windows) == priced.billed_picousd(wholelife.billed_ns(platform, life))
    before = sum(1 for _, to_ns in answered if to_ns <= BOOT_NS)
    counted = wholelife.request_picousd(2, 7, life, boundaries)
    assert round(Fraction(2 * before, 7)) + sum(counted) == round(Fraction(2 * len(answered), 7))


@pytest.mark.parametrize(("book", "platform"), LIFETIME, ids=lambda value: value.name)
@given(
    size=sizes,
    steps=st.lists(st.tuples(st.integers(0, NS_PER_HOUR), st.integers(0, 10**10), st.booleans()), max_size=12),
)
def test_for_every_sku_and_window_the_postings_are_the_origin_charge(
    book: prices.PriceBook, platform: Platform, size: tuple[int, int], steps: list[tuple[int, int, bool]]
) -> None:
    """Requests and closes on each platform: what is posted is what the rule bills, and a machine's parts are its price."""
    clock = ManualClock(BOOT_NS)
    meter = Meter(Container("c", BOOT_NS, platform.name, *size), book, clock)
    meter.mark_ready()
    for elapsed_ns, cpu_ns, closes in steps:
        clock.work(elapsed_ns, cpu_ns=min(cpu_ns, elapsed_ns))
        meter.charge(request_id="r", model="m", version=1, outcome="ok", usage=Usage(cpu_ns, rows=1))
        if closes and meter.closable_ns <= clock.now_ns() < meter.next_boundary_ns:
            meter.close_interval(clock.now_ns())
    ended_ns = meter.close_last()

    statements = [settle(each, vcpu=meter.vcpu, memory=meter.memory) for each in meter.closed]
    life = Life(BOOT_NS, BOOT_NS, ended_ns)
    boundaries = [BOOT_NS, *(statement.to_ns for statement in statements)]
    for index, priced in enumerate((meter.vcpu, meter.memory)):
        origin = wholelife.charges(platform, life, priced, boundaries)
        for statement, cost_picousd in zip(statements, origin, strict=True):
            posted = Counter[str]()
            for posting in statement.postings:
                posted[posting.sku] += posting.cost_picousd
            sku = priced.provisioned.sku
            assert posted[sku] == statement.charges[index].cost_picousd == cost_picousd
    assert not any(posting.account == "unattributed" for each in statements for posting in each.postings)
    if platform.machine_sku and (price := book.price(platform.machine_sku)):
        billed_ns = wholelife.billed_ns(platform, life)
        whole = round(Fraction(price.usd) * PICO_PER_USD * billed_ns / NS_PER_HOUR)
        assert sum(each.cost_picousd for each in statements) == whole


def test_a_minimum_is_the_price_of_having_started() -> None:
    clock = ManualClock(BOOT_NS)
    meter = Meter(Container("c", BOOT_NS, "fargate-x86", 1000, GIB), BOOKS[0], clock)
    meter.mark_ready()
    clock.work(SECOND_NS)
    meter.close_last()
    statement = settle(meter.closed[0], vcpu=meter.vcpu, memory=meter.memory)
    for charge in statement.charges:
        assert charge.beyond == 59 * charge.quantity  # one second lived, 59 s beyond it
        boot = sum(each.cost_picousd for each in statement.postings if (each.account, each.sku) == ("boot", charge.sku))
        assert boot == pytest.approx(Fraction(charge.cost_picousd * 59, 60), abs=1)


def test_a_machine_is_cut_nine_to_one_as_aws_splits_it() -> None:
    """AWS's own example: of m5.xlarge (4 vCPU, 16 GB) at $1 an hour a vCPU is $0.17 and a GB $0.02, rounded."""
    book = prices.with_machine(BOOKS[0], "1", on="2026-11-05")
    vcpu, memory = Container("c", BOOT_NS, "machine", 4000, 16 * GIB).provisioned(book.platform("machine"))
    hourly = [tariff(book, each).billed_picousd(NS_PER_HOUR) for each in (vcpu, memory)]
    assert [round(hourly[0] / PICO_PER_USD / 4, 2), round(hourly[1] / PICO_PER_USD / 16, 2)] == [0.17, 0.02]
    assert sum(hourly) == PICO_PER_USD


def test_without_a_price_everything_is_unpriced_and_the_work_is_still_counted() -> None:
    clock = ManualClock(BOOT_NS)
    unpriced = prices.PriceBook(BOOKS[0].data.replace(b'\nsku = "fargate-spot-x86/', b'\nsku = "away/'), name="b")
    meter = Meter(Container("c", BOOT_NS, "fargate-spot-x86", 1000, GIB), unpriced, clock)
    meter.mark_ready()
    clock.work(SECOND_NS, cpu_ns=SECOND_NS)
    assert meter.unpriced == ("fargate-spot-x86/vcpu", "fargate-spot-x86/memory")
    assert meter.charge(request_id="r", model="m", version=1, outcome="ok", usage=Usage(SECOND_NS // 2, rows=1)) == 0
    meter.close_last()
    statement = settle(meter.closed[0], vcpu=meter.vcpu, memory=meter.memory)
    accounts = {(posting.account, posting.sku): posting.quantity for posting in statement.postings}
    assert accounts == {
        ("infer", "fargate-spot-x86/vcpu"): 500 * SECOND_NS,
        ("unpriced", "fargate-spot-x86/vcpu"): 60 * 1000 * SECOND_NS - 500 * SECOND_NS,
        ("unpriced", "fargate-spot-x86/memory"): 60 * SECOND_NS * GIB,
    }


def test_of_lambdas_memory_a_part_is_the_vcpus_that_come_with_it() -> None:
    book = prices.shipped_for("lambda-x86")
    vcpu, memory = Container("c", BOOT_NS, "lambda-x86", 1000, 1769 << 20).provisioned(book.platform("lambda-x86"))
    bills = [tariff(book, each).billed_picousd(SECOND_NS) for each in (vcpu, memory)]
    assert sum(bills) == round(Fraction("0.0000166667") * Fraction(1769, 1024) * PICO_PER_USD)
    assert bills[0] / bills[1] == pytest.approx(9 * 1024 / 1769)


def test_a_part_is_covered_when_it_says_so() -> None:
    book = prices.with_machine(BOOKS[0], "0.0000001", on="2026-11-05")
    vcpu, _ = Container("c", BOOT_NS, "machine", 3000, 7 * GIB).provisioned(book.platform("machine"))
    priced = tariff(book, vcpu)
    for picousd in itertools.chain(range(50), (10**6, 10**6 + 1)):
        assert priced.billed_picousd(priced.covering_age_ns(picousd)) >= picousd

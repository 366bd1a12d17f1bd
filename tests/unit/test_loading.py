"""The estimate of full costs: last window's bill over last window's receipts, and silence where nobody knows."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.loading import Loading
from gateway.accounting.meter import Meter
from gateway.accounting.statement import settle
from gateway.contract import prices
from tests.support import meters
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOT_NS, CONTAINER, HOUR_NS, SECOND_NS


def test_nothing_is_said_until_something_is_known() -> None:
    loading = Loading(HOUR_NS, is_priced=True)
    assert loading.quoted(100)[1] is None
    loading.add(0, 10, 500, 0)
    assert loading.quoted(100)[1] is None


def test_in_the_first_window_it_is_what_has_been_closed_so_far() -> None:
    loading = Loading(HOUR_NS, is_priced=True)
    loading.add(0, 10, 300, 100)
    assert loading.quoted(100)[1] == 300
    loading.add(10, 20, 100, 100)
    assert loading.quoted(100)[1] == 200


def test_then_only_whole_windows_count_and_silent_ones_do_not() -> None:
    loading = Loading(HOUR_NS, is_priced=True)
    loading.add(0, HOUR_NS, 400, 100)
    loading.add(HOUR_NS, HOUR_NS + 10, 9000, 10)
    assert loading.quoted(100)[1] == 400
    loading.add(HOUR_NS + 10, 2 * HOUR_NS, 1000, 990)
    assert loading.quoted(100)[1] == 1000
    loading.add(2 * HOUR_NS, 3 * HOUR_NS, 1000, 0)
    assert loading.quoted(100)[1] == 1000


def test_what_has_no_price_has_no_full_cost_either() -> None:
    loading = Loading(HOUR_NS, is_priced=False)
    loading.add(0, HOUR_NS, 400, 100)
    assert loading.quoted(100)[1] is None


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**7)), min_size=1, max_size=30))
def test_with_the_factor_of_a_window_its_receipts_come_to_its_bill(used: list[tuple[int, int]]) -> None:
    """Had every request of the window been quoted by its own factor, they would add up to the box, within rounding."""
    clock = ManualClock(BOOT_NS)
    meter = Meter(CONTAINER, prices.load(), clock)
    meter.mark_ready()
    clock.work(10 * SECOND_NS)
    receipts = []
    for wall_ns, cpu_ns in used:
        clock.work(wall_ns)
        receipts.append(meters.charge(meter, cpu_ns))
    assert meter.quoted(5) == (5, None)
    clock.work(10 * SECOND_NS)
    meter.close_interval(clock.now_ns())
    bill = settle(meter.closed[0], vcpu=meter.vcpu, memory=meter.memory).cost_picousd
    full = [meter.quoted(receipt)[1] for receipt in receipts]
    if sum(receipts):
        assert bill - len(receipts) <= sum(each or 0 for each in full) <= bill
    else:
        assert full == [None] * len(receipts)

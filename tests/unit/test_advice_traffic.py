"""Traffic: rates, traces of timestamps and of counts, silent bins, and every refusal names its line."""

import pytest

from gateway.advice import traffic
from gateway.errors import InvalidInput

HOUR_S = 3600


def test_a_rate_is_the_same_all_the_time():
    steady = traffic.at_rate(2.5)
    assert steady.mean_rps == steady.peak_rps == 2.5
    assert (steady.silent_share, steady.wakes, steady.is_observed) == (0, 0, False)


@pytest.mark.parametrize("rps", [0, -1, float("nan"), float("inf"), 1e12])
def test_refuses_a_rate_that_is_none(rps: float):
    with pytest.raises(InvalidInput, match="--rps"):
        traffic.at_rate(rps)


def test_hours_between_are_silent_and_a_day_wraps_around():
    day = traffic.of_hours("the ledger", {10: 100, 13: 50, 15: 0})
    assert day.counts == (100, 0, 0, 50, 0, 0)
    assert day.wakes == 2  # after the last hour the first comes again
    assert day.silent_share == pytest.approx(4 / 6)


def test_an_empty_ledger_says_what_to_do():
    with pytest.raises(InvalidInput, match="say --rps, or --trace"):
        traffic.of_hours("the ledger", {10: 0})


def test_timestamps_are_counted_by_the_minute():
    seen = traffic.of_trace("t.csv", "at\n2026-11-01T00:00:05Z\n2026-11-01T00:00:59Z\n2026-11-01T00:02:00+00:00\n")
    assert (seen.bin_s, seen.counts) == (60, (2, 0, 1))


def test_unix_seconds_are_the_same_as_iso_and_order_does_not_matter():
    iso = traffic.of_trace("t", "2026-11-01T00:03\n2026-11-01T00:00\n")
    assert iso == traffic.of_trace("t", "1793491200.0\n1793491380\n")


def test_counts_last_until_the_next_step():
    seen = traffic.of_trace("t.csv", "time,requests\n2026-11-01T00:00,30\n2026-11-01T00:15,0\n2026-11-01T01:00,9\n")
    assert (seen.bin_s, seen.counts) == (900, (30, 0, 0, 0, 9))
    assert seen.requests == 39


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no request"),
        ("at\n", "no request"),
        ("at\n2026-11-01\nyesterday\n", "line 3"),
        ("at\n2026-11-01\n=cmd()\n", "line 3"),
        ("at\n2026-11-01\n-5\n", "line 3"),
        ("at,n\n2026-11-01,5\n2026-11-02,-5\n", "line 3"),
        ("at,n\n2026-11-01,5\n2026-11-02,many\n", "line 3"),
        ("at,n\n2026-11-01,5\n2026-11-02\n", "either every line"),
        ("at,n\n2026-11-01,0\n2026-11-02,0\n", "all counts are 0"),
        ("at,n\n1.1,5\n1.2,5\n", "closer than a second"),
        ("1\n9000000000\n", "spans"),
        ("1,1.5\n2,3\n", r"line 1: '1\.5' is no count: a whole number"),
        ("at,n\n1,1e99\n", "line 2: '1e99' is no count"),
        ("at,n\n1,1000000000001\n", "line 2: '1000000000001' is no count"),
        ("at\n2026-13-01\n", "line 2: '2026-13-01' is no time"),
        ('at\n"2026-11-01\n', "no CSV: unexpected end of data"),
        ("at\n" + "x" * 200_000, "line 2: no CSV: field larger"),
        ("at\na\0b\n", r"line 2: 'a\\x00b' is no time"),
    ],
)
def test_refuses_a_trace_that_is_none(text: str, says: str):
    with pytest.raises(InvalidInput, match=says):
        traffic.of_trace("t.csv", text)


def test_arrivals_follow_the_counts_and_the_seed():
    day = traffic.of_hours("x", {0: 4000, 1: 0, 2: 1000})
    arrivals = day.arrivals_ns(7)
    assert arrivals == sorted(arrivals) == day.arrivals_ns(7) != day.arrivals_ns(8)
    hours = [at // (HOUR_S * 10**9) for at in arrivals]
    assert hours.count(0) == pytest.approx(4000, rel=0.1)
    assert hours.count(1) == 0
    assert hours.count(2) == pytest.approx(1000, rel=0.15)


def test_a_large_trace_is_simulated_around_its_peak_only():
    month = traffic.of_hours("x", {hour: 10**6 if hour == 500 else 10**5 for hour in range(720)})
    assert len(month.arrivals_ns(0)) <= 2 * traffic.SIMULATED_MAX

"""The token bucket against its promise: never more than burst + rate * t, and a wait that is exact to the nanosecond."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.bucket import SECOND_NS, TokenBucket

RATES = st.integers(1, 10_000) | st.sampled_from([3, 7, 999_999_937, 10**12])
GAPS = st.lists(st.integers(0, 3 * SECOND_NS) | st.integers(0, 1000) | st.just(-5), max_size=60)


@given(RATES, st.integers(1, 50), st.integers(0, 10**19), GAPS)
def test_no_interval_admits_more_than_burst_and_rate_allow(
    rps: int, burst: int, start_ns: int, gaps: list[int]
) -> None:
    bucket, now_ns, admitted = TokenBucket(rps, burst, start_ns), start_ns, []
    for gap in gaps:
        now_ns += gap
        if bucket.take(now_ns) == 0:
            admitted.append(now_ns)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            elapsed_ns = max(admitted[: last + 1]) - max(admitted[: first + 1])
            assert (last - first + 1 - burst) * SECOND_NS <= elapsed_ns * rps


@given(st.integers(1, 10_000), st.integers(1, 5), st.integers(0, SECOND_NS))
def test_the_wait_it_names_is_the_shortest_that_works(rps: int, burst: int, into_ns: int) -> None:
    bucket, now_ns = TokenBucket(rps, burst, 0), 0
    for _ in range(burst):
        assert bucket.take(now_ns) == 0
    now_ns += into_ns // (rps + 1)  # less than one token's time
    wait_ns = bucket.take(now_ns)
    assert wait_ns > 0
    assert bucket.take(now_ns + wait_ns - 1) > 0
    assert bucket.take(now_ns + wait_ns) == 0


@given(st.integers(1, 1000), st.integers(1, 100), st.integers(1, 1000))
def test_who_keeps_to_the_rate_is_never_refused(rps: int, burst: int, requests: int) -> None:
    bucket = TokenBucket(rps, burst, 0)
    apart_ns = -(-SECOND_NS // rps)
    assert all(bucket.take(number * apart_ns) == 0 for number in range(requests))


def test_a_refusal_takes_no_token() -> None:
    bucket = TokenBucket(1, 1, 0)
    assert bucket.take(0) == 0
    assert [bucket.take(SECOND_NS - 1) for _ in range(100)] == [1] * 100
    assert bucket.take(SECOND_NS) == 0


def test_a_long_pause_fills_the_bucket_and_no_more() -> None:
    bucket = TokenBucket(5, 2, 0)
    day_ns = 86_400 * SECOND_NS
    assert [bucket.take(day_ns) > 0 for _ in range(3)] == [False, False, True]

"""The demonstration's autoscaler: within its bounds whatever it is told, up at once, down after a lull, to zero when idle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster import autoscaling
from gateway.cluster.autoscaling import IDLE_S, SETTLE_S, TARGET, Autoscaler, Bounds
from gateway.errors import SettingsError


def test_bounds() -> None:
    assert autoscaling.parsed("0..4") == Bounds(0, 4)
    assert autoscaling.parsed("3..3") == Bounds(3, 3)


@pytest.mark.parametrize("text", ["3", "4..2", "0..0", "1..65", "a..b", "-1..2", "1...2", "", "1..2\n", "0..9999"])
def test_bounds_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match=r"write FEWEST\.\.MOST, such as 0\.\.4"):
        autoscaling.parsed(text)


def test_full_gateways_get_another_at_once() -> None:
    scaler = Autoscaler(Bounds(1, 8), 0.0)
    assert scaler.decide(1.0, running=2, saturation=1.0, requests=10, waiting=0) == 4
    assert scaler.decide(2.0, running=4, saturation=TARGET, requests=20, waiting=0) == 4


def test_a_lull_takes_none_away_until_it_has_lasted() -> None:
    scaler = Autoscaler(Bounds(1, 8), 0.0)
    assert scaler.decide(0.0, running=4, saturation=TARGET, requests=1, waiting=0) == 4
    assert scaler.decide(SETTLE_S - 1, running=4, saturation=0.1, requests=2, waiting=0) == 4
    assert scaler.decide(SETTLE_S + 1, running=4, saturation=0.1, requests=3, waiting=0) == 1


def test_the_last_one_goes_when_nobody_asks() -> None:
    scaler = Autoscaler(Bounds(0, 4), 0.0)
    assert scaler.decide(0.0, running=1, saturation=0.0, requests=5, waiting=0) == 1
    assert scaler.decide(IDLE_S - 1, running=1, saturation=0.0, requests=5, waiting=0) == 1
    assert scaler.decide(IDLE_S, running=1, saturation=0.0, requests=5, waiting=0) == 0


def test_one_comes_when_somebody_waits() -> None:
    scaler = Autoscaler(Bounds(0, 4), 0.0)
    later_s = 10 * IDLE_S
    assert scaler.decide(later_s, running=0, saturation=0.0, requests=0, waiting=0) == 0
    assert scaler.decide(later_s + 1, running=0, saturation=0.0, requests=0, waiting=1) == 1
    assert scaler.decide(later_s + 2, running=1, saturation=0.0, requests=0, waiting=0) == 1


looks = st.tuples(st.floats(0.1, 60), st.floats(0, 50), st.integers(0, 3), st.integers(0, 3))


@given(st.integers(0, 8), st.integers(1, 8), st.lists(looks, max_size=60))
def test_it_stays_within_its_bounds_and_never_more_than_doubles(
    fewest: int, more: int, told: list[tuple[float, float, int, int]]
) -> None:
    bounds = Bounds(fewest, fewest + more)
    scaler, now_s, running, requests = Autoscaler(bounds, 0.0), 0.0, fewest, 0
    for elapsed_s, saturation, asked, waiting in told:
        now_s, requests = now_s + elapsed_s, requests + asked
        wanted = scaler.decide(now_s, running=running, saturation=saturation, requests=requests, waiting=waiting)
        assert bounds.fewest <= wanted <= bounds.most
        assert wanted <= max(1, 2 * running)
        running = wanted


@given(st.integers(1, 8), st.floats(0.61 * 1.1, 10))
def test_more_load_never_gives_fewer(running: int, saturation: float) -> None:
    scaler = Autoscaler(Bounds(1, 64), 0.0)
    assert scaler.decide(1.0, running=running, saturation=saturation, requests=1, waiting=0) > running

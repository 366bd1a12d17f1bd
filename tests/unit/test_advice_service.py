"""What a trial says of service times, and what is foreseen from them: gateways of known times, the formulas of queueing theory."""

import random
from itertools import accumulate
from math import log
from statistics import mean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.advice.service import Burst, Rules, Service, Trial, foresee, of_trial
from gateway.advice.simulation import Fleet

US = 10**3
REQUESTS = 60_000


def poisson(rate_per_us: float, seed: int, count: int = REQUESTS) -> list[int]:
    rng = random.Random(seed)
    return list(accumulate(round(rng.expovariate(rate_per_us) * US) for _ in range(count)))


def replayed(arrivals: list[int], lone: list[int], queued: list[int], read: int, after: int) -> list[int]:
    """When each is answered, moment by moment: a loop that reads what comes at once, and then goes on with what it was doing."""
    answered: list[int] = []
    waiting: list[int] = []
    running, left, now, free, came = -1, 0, 0, 0, 0
    while len(answered) < len(arrivals):
        upcoming = arrivals[came] if came < len(arrivals) else None
        if running < 0:
            if waiting:
                running = waiting.pop(0)
                left, now = queued[running] - read, free
            else:
                assert upcoming is not None
                running, now = came, max(upcoming, free)
                left = lone[came] if upcoming >= free else queued[came]
                came += 1
        elif upcoming is not None and upcoming < now + left:
            waiting.append(came)
            left = left - (upcoming - now) + read if upcoming > now else left + read
            now = max(now, upcoming)
            came += 1
        else:
            now += left
            answered.append(now)
            running, free = -1, now + after
    return answered


def trial_of(lone: int, queued: int, read: int, after: int, count: int = 3000) -> Trial:
    """A gateway whose times do not vary."""
    arrivals = poisson(0.6 / (queued / US), 5, count)
    answered = replayed(arrivals, [lone] * count, [queued - after] * count, read, after)
    bursts = []
    for size in (1, 2, 4):
        at = replayed([0] * size, [lone] * size, [queued - after] * size, read, after)
        bursts += [Burst(tuple(at))] * 3
    busy = sum(done - max(sent, before) for sent, done, before in zip(arrivals, answered, [0, *answered], strict=False))
    found = sum(sent >= before for sent, before in zip(arrivals, [0, *answered], strict=False))
    return Trial(
        tuple(bursts),
        tuple(arrivals),
        tuple(answered),
        busy + after * found,
    )


@pytest.mark.parametrize(("read", "after"), [(0, 0), (30 * US, 0), (0, 9 * US), (30 * US, 9 * US)])
def test_a_trial_gives_back_the_times_of_the_gateway(read: int, after: int):
    service = of_trial(trial_of(120 * US, 70 * US, read, after), Rules())
    assert service.read_ns == pytest.approx(read, abs=1)
    assert mean(service.queued_ns) == pytest.approx(70 * US, rel=0.03)
    assert mean(service.lone_ns) == pytest.approx(120 * US, rel=0.05)  # who comes within `after` waited a little
    assert service.after_ns == pytest.approx(after, abs=1)
    assert service.saturated_rps == pytest.approx(1e9 / (70 * US), rel=0.03)


def test_a_trial_of_rare_traffic_takes_what_waits_from_its_bursts():
    rare = trial_of(120 * US, 70 * US, 0, 0, count=12)
    rare = msgspec.structs.replace(
        rare,
        sent_ns=tuple(number * 10**9 for number in range(12)),
        answered_ns=tuple(number * 10**9 + 200 * US for number in range(12)),
        cpu_ns=12 * 200 * US,
    )
    service = of_trial(rare, Rules())
    assert set(service.lone_ns) == {200 * US}
    assert set(service.queued_ns) == {70 * US}


def test_time_that_others_had_the_core_is_taken_out():
    """Every 50th answer comes 20 ms late, and all that waited for it."""
    alone = trial_of(120 * US, 70 * US, 0, 0, count=3000)
    rng, late, now = random.Random(1), [], 0
    for sent, lone in zip(alone.sent_ns, [120 * US] * 3000, strict=True):
        now = (sent + lone if sent >= now else now + 70 * US) + (20_000 * US if rng.random() < 0.02 else 0)
        late.append(now)
    waited = sum(before > sent for before, sent in zip(late, alone.sent_ns[1:], strict=False))
    cpu_ns = 70 * US * waited + 120 * US * (3000 - waited)
    shared = msgspec.structs.replace(alone, answered_ns=tuple(late), cpu_ns=cpu_ns)
    assert shared.own_share < 0.3
    service = of_trial(shared, Rules())
    assert mean(service.queued_ns) == pytest.approx(70 * US, rel=0.03)
    assert max(service.lone_ns + service.queued_ns) < 300 * US


def test_a_trial_of_batches_tells_what_a_mate_saves():
    bursts = [(100,), (100, 400), (100, 560, 560, 560)]  # 300 alone, and 80 for each mate
    trial = Trial(tuple(map(Burst, bursts)), (0, 1000), (100, 1100), 200)
    service = of_trial(trial, Rules(batch_max=8))
    assert (service.queued_ns, service.mate_saves_ns, service.batch_max) == ((300,), 220, 8)
    assert service.saturated_rps == pytest.approx(8e9 / (300 + 7 * 80))


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40),
    st.integers(60, 300),
    st.integers(60, 200),
    st.integers(0, 50),
    st.integers(0, 20),
)
@settings(max_examples=200, deadline=None)
def test_what_is_foreseen_is_what_a_replay_of_every_moment_gives(
    gaps: list[int], lone: int, queued: int, read: int, after: int
):
    arrivals = [3 * at for at in accumulate(gaps)]  # apart from the moments at which something ends
    service = Service((3 * lone + 1,), (3 * queued,), 3 * read, 3 * after)
    foreseen = foresee(arrivals, service, Fleet(), seed=0)
    count = len(arrivals)
    answered = replayed(arrivals, [3 * lone + 1] * count, [3 * (queued - after)] * count, 3 * read, 3 * after)
    assert list(foreseen.latency_ns) == [done - came for done, came in zip(answered, arrivals, strict=True)]


@pytest.mark.parametrize(("load", "lone_us"), [(0.3, 100), (0.6, 250), (0.8, 160), (0.8, 60)])
def test_mean_wait_is_that_of_m_g_1_with_an_exceptional_first_service(load: float, lone_us: int):
    """Welch 1964: wait = r*s2/(2(1-r*s)) + r*(f2-s2)/(2(1-r*s+r*f)), s and f the mean services, s2 and f2 of their squares."""
    rng = random.Random(1)
    queued = [max(1, round(rng.gammavariate(2, 50) * US)) for _ in range(5000)]
    lone = [max(1, round(rng.gammavariate(4, lone_us / 4) * US)) for _ in range(5000)]
    s, s2, f, f2 = mean(queued), mean(x * x for x in queued), mean(lone), mean(x * x for x in lone)
    rate = load / s
    foreseen = foresee(poisson(rate * US, 11), Service(tuple(lone), tuple(queued)), Fleet(), seed=2)
    wait = rate * s2 / (2 * (1 - rate * s)) + rate * (f2 - s2) / (2 * (1 - rate * s + rate * f))
    idle = (1 - rate * s) / (1 - rate * s + rate * f)
    assert mean(foreseen.latency_ns) == pytest.approx(wait + idle * f + (1 - idle) * s, rel=0.06)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_quantiles_are_those_of_m_m_1(load: float):
    """Time in the system is exponential with rate (1-load)/service."""
    rng = random.Random(2)
    service = tuple(max(1, round(rng.expovariate(1 / 100) * US)) for _ in range(20_000))
    foreseen = foresee(poisson(load / 100, 4), Service(service, service), Fleet(), seed=3)
    stays_ns = mean(service) / (1 - load)
    for quantile in (0.5, 0.95):
        assert foreseen.quantile_ns(quantile) == pytest.approx(-log(1 - quantile) * stays_ns, rel=0.08)


def test_reading_costs_those_who_are_under_way_and_nobody_twice():
    arrivals = poisson(0.7 / 100, 9, 10_000)
    plain, reading = (
        foresee(arrivals, Service((100 * US,), (100 * US,), read), Fleet(), seed=0).latency_ns for read in (0, 20 * US)
    )
    assert all(later >= sooner for sooner, later in zip(plain, reading, strict=True))
    assert max(reading) <= max(plain) * 1.3
    waits = mean(plain) - 100 * US
    assert mean(reading) - mean(plain) == pytest.approx(
        0.2 * 0.7 * mean(reading), rel=0.1
    )  # read * rate * time in the system
    assert waits > 0


def test_quantiles_of_nothing_are_nothing():
    foreseen = foresee([], Service((1,), (1,)), Fleet(), seed=0)
    assert (foreseen.latency_ns, foreseen.quantile_ns(0.99)) == ((), 0)

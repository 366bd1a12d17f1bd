"""How long requests hold a worker, as measured, and what a simulated fleet of such workers makes callers wait. Pure.

A request that finds its worker idle takes longer than one that waited: the thread is woken, and what neighbours did to the caches
meanwhile is paid by it. On one core a small model's took 100 us after a pause and 60 us behind another one (tests/bench/advise.py).
Queues with an exceptional first service are those of P. D. Welch, "On a Generalized M/G/1 Queuing Process in Which the First
Customer of Each Busy Period Receives Exceptional Service", Operations Research 12(5), 1964.
"""

import random
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from statistics import mean, median

import msgspec

from gateway.advice.simulation import Fleet, Simulated, simulate

QUEUED_MIN = 20
"""Requests that waited, of a trial: where traffic is rare, the second ones of bursts stand for them."""


class Burst(msgspec.Struct, frozen=True, gc=False):
    """Requests sent at once to a gateway that was idle: when each was answered, ascending, in nanoseconds from then."""

    answered_ns: tuple[int, ...]


class Trial(msgspec.Struct, frozen=True):
    """What `loading` saw: bursts of 1, 2 and 4 requests, and then Poisson arrivals: when they left, in ascending order, and when
    they they were answered. `cpu_ns`: of the gateway's process, during these arrivals.
    """

    bursts: tuple[Burst, ...]
    sent_ns: tuple[int, ...]
    answered_ns: tuple[int, ...]
    cpu_ns: int

    @property
    def request_cpu_ns(self) -> int:
        return max(1, self.cpu_ns // len(self.sent_ns))

    @property
    def own_share(self) -> float:
        """Of the time in which somebody was being answered: CPU that the process had, at most 1."""
        return min(1.0, self.cpu_ns / max(1, _held(self, 0)[2]))

    def of_size(self, size: int) -> list[tuple[int, ...]]:
        """The answers of bursts of so many."""
        return [burst.answered_ns for burst in self.bursts if len(burst.answered_ns) == size]


class Rules(msgspec.Struct, frozen=True):
    """How a gateway runs rows that come one by one: on its event loop, each alone, or by a worker, up to `batch_max` together."""

    is_inline: bool = False
    batch_max: int = 1


class Service(msgspec.Struct, frozen=True):
    """Nanoseconds. `lone_ns`: until requests that found an idle worker were answered; `queued_ns`: by how much later than the one
    before each was that waited.

    `read_ns`: of that, what is read on the event loop as soon as it comes, so that it delays what is under way. `after_ns`: how
    long a worker is held beyond its last answer, for receipts and records. Up to `batch_max` that wait run together, each mate
    after the first taking `mate_saves_ns` less.
    """

    lone_ns: tuple[int, ...]
    queued_ns: tuple[int, ...]
    read_ns: int = 0
    after_ns: int = 0
    batch_max: int = 1
    mate_saves_ns: int = 0

    @property
    def saturated_rps(self) -> float:
        """Of a worker that is never idle."""
        batch_ns = self.batch_max * mean(self.queued_ns) - (self.batch_max - 1) * self.mate_saves_ns
        return self.batch_max * 1e9 / batch_ns


def of_trial(trial: Trial, rules: Rules) -> Service:
    """Of a worker that has its core to itself: time that others had the core is taken out, for CPU is known exactly.

    What a loop that runs the graph itself takes for reading delays nobody who is under way.
    """
    read_ns = 0 if rules.is_inline else _read_ns(trial)
    lone, queued, busy_ns = _held(trial, read_ns)
    after_ns = max(0, (trial.cpu_ns - busy_ns) // len(lone))
    cap_ns = _cap_ns(lone + queued, trial.cpu_ns) if busy_ns > trial.cpu_ns else sys.maxsize
    second_ns = max(1, round(median(min(cap_ns, pair[1] - pair[0] + read_ns) for pair in trial.of_size(2))))
    lone, queued = ([min(cap_ns, one) for one in held] for held in (lone, queued))
    if rules.batch_max == 1:
        return Service(tuple(lone), tuple(queued) if len(queued) >= QUEUED_MIN else (second_ns,), read_ns, after_ns)
    ends_ns = [median(answered[-1] for answered in trial.of_size(size)) for size in (2, 4)]
    saves_ns = max(0, round(second_ns - (ends_ns[1] - ends_ns[0]) / 2))
    return Service(tuple(lone), (second_ns,), read_ns, after_ns, rules.batch_max, saves_ns)


def _cap_ns(held_ns: Sequence[int], cpu_ns: int) -> int:
    """At which times have to be cut for their sum to be no more than the CPU that was used: so much had others of the core.

    They take it in few and long pieces, from whomever they meet; what the others took stays as it was.
    """
    left_ns = cpu_ns
    ordered = sorted(held_ns)
    for place, one in enumerate(ordered):
        if one * (len(ordered) - place) >= left_ns:
            return max(1, left_ns // (len(ordered) - place))
        left_ns -= one
    return ordered[-1]


def _read_ns(trial: Trial) -> int:
    """By how much the first answer is later for each that was sent with it. Two are read in two turns of the event loop and four in
    fewer than four; arrivals that meet are something between.
    """
    firsts_ns = {size: median(answered[0] for answered in trial.of_size(size)) for size in (1, 2, 4)}
    return max(0, round(mean((firsts_ns[size] - firsts_ns[1]) / (size - 1) for size in (2, 4))))


def queued_ns(trial: Trial) -> float:
    """What a request takes that waited for others: 0 where none did."""
    _, queued, _ = _held(trial, 0)
    return mean(queued) if len(queued) >= QUEUED_MIN else 0.0


def _held(trial: Trial, read_ns: int) -> tuple[list[int], list[int], int]:
    """What requests took that came while nobody was being answered, what the others did, and for how long somebody was.

    Answers are given in the order of arrival; so the n-th is to the n-th. From each goes the reading of those that came meanwhile,
    and to each that waited its own, which was done before.
    """
    lone: list[int] = []
    queued: list[int] = []
    busy_ns = came = last_ns = 0
    for number, (sent_ns, answered_ns) in enumerate(zip(trial.sent_ns, sorted(trial.answered_ns), strict=True)):
        began = max(came, number + 1)
        came = bisect_left(trial.sent_ns, answered_ns, lo=began)
        is_lone = not number or sent_ns >= last_ns
        took_ns = answered_ns - (sent_ns if is_lone else last_ns)
        busy_ns += took_ns
        held_ns = took_ns - read_ns * (came - began)
        (lone if is_lone else queued).append(max(1, held_ns if is_lone else held_ns + read_ns))
        last_ns = answered_ns
    return lone, queued, busy_ns


class Foreseen(msgspec.Struct, frozen=True):
    """`latency_ns` in the order of arrival."""

    latency_ns: tuple[int, ...]
    fleet: Simulated

    def quantile_ns(self, quantile: float) -> int:
        """Nearest rank; 0 when nothing came."""
        ordered = sorted(self.latency_ns)
        return ordered[max(0, -int(-quantile * len(ordered) // 1) - 1)] if ordered else 0


def foresee(arrivals_ns: Sequence[int], service: Service, fleet: Fleet, seed: int) -> Foreseen:
    """What callers who come then wait for their answers. Each draws its time from those measured."""
    rng = random.Random(seed)  # noqa: S311  a simulation, repeatable on purpose
    lone = [one + service.after_ns for one in rng.choices(service.lone_ns, k=len(arrivals_ns))]
    queued = rng.choices(service.queued_ns, k=len(arrivals_ns))
    fleet = msgspec.structs.replace(fleet, batch_max=service.batch_max, mate_saves_ns=service.mate_saves_ns)
    seen = simulate(arrivals_ns, queued, fleet, lone)
    return Foreseen(tuple(_latencies(seen, service)), seen)


def _latencies(seen: Simulated, service: Service) -> list[int]:
    """First come first served, but all that comes is read at once, by the loop of the worker that will run it.

    So a request is answered when all work up to its own is done, and the reading of those that came since; the sum of the work is
    the same. Answers do not overtake each other: the next one takes at least as long as its reading.
    """
    latencies = [0] * len(seen.handled)
    numbers_of: defaultdict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(seen.handled):
        numbers_of[one.worker].append(number)
    for numbers in numbers_of.values():
        came = end = 0
        for ended_ns, batch in groupby(numbers, lambda number: seen.handled[number].ended_ns):
            mates = list(batch)
            end += len(mates)
            came = max(came, end)
            answered_ns = ended_ns - service.after_ns + service.read_ns * (came - end)
            while came < len(numbers) and seen.handled[numbers[came]].arrived_ns < answered_ns:
                came += 1
                answered_ns += service.read_ns
            for number in mates:
                latencies[number] = max(0, answered_ns - seen.handled[number].arrived_ns)
    return latencies

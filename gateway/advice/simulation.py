"""A fleet of gateways, simulated: who waits how long, and how much of the fleet is paid for. Pure: same arguments, same result.

One queue, first come first served, in front of all workers: what a balancer that knows who is free comes to. A worker runs one
request, or one batch, at a time. The scaler is Kubernetes' HPA over `steelyard_saturation_ratio` with its defaults
(kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale): every 15 s `ceil(replicas * saturation / target)`, no change
within a tenth, growth at most by doubling or by four, and down only to the most that the last five minutes wanted. A floor of 0
starts one replica on an arrival and stops the last after five minutes of silence.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import msgspec

PERIOD_NS = 15 * 10**9
SETTLE_NS = 300 * 10**9
TOLERANCE = 0.1
GROWTH_MIN = 4

_ENDED, _READY, _TICK, _ARRIVED = range(4)
"""At one moment in this order: who is done frees a worker for who arrives."""


class Fleet(msgspec.Struct, frozen=True):
    """`workers`: of one replica. `target`: the saturation that the scaler holds. `mate_saves_ns`: what a request that joins
    another's batch takes less than alone; `batch_max` 1 runs each alone. `replicas_start` are warm at the first arrival.
    A wait of `objective_ns` is a saturation of 1.
    """

    replicas_min: int = 1
    replicas_max: int = 1
    replicas_start: int = 0
    workers: int = 1
    target: float = 0.6
    cold_start_ns: int = 0
    objective_ns: int = 0
    batch_max: int = 1
    mate_saves_ns: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.replicas_min <= self.replicas_max or self.replicas_max < 1 or self.workers < 1:
            raise ValueError("a fleet has 0 <= replicas_min <= replicas_max, at least one replica and one worker")
        if not 0 < self.target <= 1 or self.batch_max < 1:
            raise ValueError("'target' is above 0 and at most 1, 'batch_max' at least 1")


class Handled(msgspec.Struct, frozen=True, gc=False):
    """One request: on which worker, and when. Those of one batch share worker, start and end."""

    arrived_ns: int
    started_ns: int
    ended_ns: int
    worker: int

    @property
    def latency_ns(self) -> int:
        return self.ended_ns - self.arrived_ns


class Simulated(msgspec.Struct, frozen=True):
    """`handled` in the order of arrival. `replica_ns` is billed: from a replica's start, its cold start included, to its end."""

    handled: tuple[Handled, ...]
    busy_ns: int
    replica_ns: int
    ready_ns: int
    cold_starts: int
    replicas_peak: int
    workers: int

    @property
    def utilisation(self) -> float:
        """Share of the time in which ready workers worked."""
        return self.busy_ns / max(1, self.ready_ns * self.workers)

    def latency_ns(self, quantile: float) -> int:
        """Nearest rank; 0 when nothing came."""
        ordered = sorted(one.latency_ns for one in self.handled)
        return ordered[max(0, ceil(quantile * len(ordered)) - 1)] if ordered else 0

    @property
    def mean_latency_ns(self) -> float:
        return sum(one.latency_ns for one in self.handled) / max(1, len(self.handled))


class _Replica(msgspec.Struct, gc=False):
    first_worker: int
    began_ns: int
    ready_ns: int | None = None
    running: int = 0
    is_draining: bool = False


def simulate(
    arrivals_ns: Sequence[int], service_ns: Sequence[int], fleet: Fleet, lone_ns: Sequence[int] | None = None
) -> Simulated:
    """Request i arrives at `arrivals_ns[i]`, in ascending order, and holds a worker for `service_ns[i]`, alone; one that need not
    wait for `lone_ns[i]`, which may be longer: it finds its worker asleep.
    """
    return _Run(arrivals_ns, service_ns, fleet, service_ns if lone_ns is None else lone_ns).run()


class _Run:
    def __init__(
        self, arrivals_ns: Sequence[int], service_ns: Sequence[int], fleet: Fleet, lone_ns: Sequence[int]
    ) -> None:
        if not len(arrivals_ns) == len(service_ns) == len(lone_ns) or any(b < a for a, b in pairwise(arrivals_ns)):
            raise ValueError("arrivals must ascend, and each needs its service time")
        self._arrivals, self._service, self._lone, self._fleet = arrivals_ns, service_ns, lone_ns, fleet
        self._now = arrivals_ns[0] if arrivals_ns else 0
        self._handled: list[Handled | None] = [None] * len(arrivals_ns)
        self._left = len(arrivals_ns)
        self._queue: deque[int] = deque()
        self._free: list[int] = []
        self._replicas: dict[int, _Replica] = {}
        self._events: list[tuple[int, int, int]] = []
        self._numbers = 0
        self._running = 0
        self._busy_ns = self._replica_ns = self._ready_ns = self._cold_starts = self._peak = 0
        self._busy_seen_ns = self._ready_seen_ns = 0
        self._waited_ns = self._started = 0
        self._wanted: deque[tuple[int, int]] = deque()
        self._touched_ns = self._now

    def run(self) -> Simulated:
        began_ns = self._now
        for _ in range(max(self._fleet.replicas_min, self._fleet.replicas_start)):
            self._start(is_warm=True)
        if self._fleet.replicas_min < self._fleet.replicas_max:
            heapq.heappush(self._events, (began_ns + PERIOD_NS, _TICK, 0))
        upcoming = 0
        while self._left:
            if upcoming < len(self._arrivals) and (
                not self._events or (self._arrivals[upcoming], _ARRIVED) < self._events[0][:2]
            ):
                self._advance(self._arrivals[upcoming])
                self._arrive(upcoming)
                upcoming += 1
            else:
                at_ns, kind, number = heapq.heappop(self._events)
                self._advance(at_ns)
                (self._end, self._become_ready, self._tick)[kind](number)
            self._dispatch()
        for number in list(self._replicas):
            self._stop(number)
        handled = tuple(one for one in self._handled if one is not None)
        return Simulated(
            handled, self._busy_ns, self._replica_ns, self._ready_ns, self._cold_starts, self._peak, self._fleet.workers
        )

    def _advance(self, to_ns: int) -> None:
        elapsed = to_ns - self._now
        self._busy_ns += self._running * elapsed
        self._ready_ns += elapsed * sum(replica.ready_ns is not None for replica in self._replicas.values())
        self._now = to_ns

    def _arrive(self, request: int) -> None:
        self._queue.append(request)
        self._touched_ns = self._now
        if not any(not replica.is_draining for replica in self._replicas.values()):
            self._start()

    def _start(self, *, is_warm: bool = False) -> None:
        number, self._numbers = self._numbers, self._numbers + 1
        self._replicas[number] = _Replica(number * self._fleet.workers, self._now)
        self._peak = max(self._peak, len(self._replicas))
        if is_warm or not self._fleet.cold_start_ns:
            self._become_ready(number)
        else:
            heapq.heappush(self._events, (self._now + self._fleet.cold_start_ns, _READY, number))
        self._cold_starts += not is_warm

    def _become_ready(self, number: int) -> None:
        replica = self._replicas.get(number)
        if replica is not None:  # it may have been stopped while it started
            replica.ready_ns = self._now
            for worker in range(self._fleet.workers):
                heapq.heappush(self._free, replica.first_worker + worker)

    def _stop(self, number: int) -> None:
        replica = self._replicas.pop(number)
        self._replica_ns += self._now - replica.began_ns

    def _dispatch(self) -> None:
        while self._queue and self._free:
            worker = heapq.heappop(self._free)
            replica = self._replicas.get(worker // self._fleet.workers)
            if replica is None or replica.is_draining:
                continue
            batch = [self._queue.popleft() for _ in range(min(self._fleet.batch_max, len(self._queue)))]
            ends_ns = self._now + self._takes_ns(batch)
            for request in batch:
                self._handled[request] = Handled(self._arrivals[request], self._now, ends_ns, worker)
                self._waited_ns += self._now - self._arrivals[request]
            self._started += len(batch)
            self._left -= len(batch)
            self._running += 1
            replica.running += 1
            heapq.heappush(self._events, (ends_ns, _ENDED, worker))
        if not self._left:
            self._finish()

    def _takes_ns(self, batch: list[int]) -> int:
        if len(batch) == 1:
            [request] = batch
            return (self._lone if self._arrivals[request] == self._now else self._service)[request]
        each_ns = [self._service[request] for request in batch]
        return max(*each_ns, sum(each_ns) - (len(batch) - 1) * self._fleet.mate_saves_ns)

    def _finish(self) -> None:
        """Everything has a worker: let the last ones end."""
        while self._running:
            at_ns, kind, number = heapq.heappop(self._events)
            if kind == _ENDED:
                self._advance(at_ns)
                self._end(number)

    def _end(self, worker: int) -> None:
        number = worker // self._fleet.workers
        replica = self._replicas[number]
        self._running -= 1
        replica.running -= 1
        self._touched_ns = self._now
        if replica.is_draining:
            if not replica.running:
                self._stop(number)
        else:
            heapq.heappush(self._free, worker)

    def _tick(self, _: int) -> None:
        heapq.heappush(self._events, (self._now + PERIOD_NS, _TICK, 0))
        kept = [number for number, replica in self._replicas.items() if not replica.is_draining]
        wanted = self._desired(len(kept))
        self._wanted.append((self._now, wanted))
        while self._wanted[0][0] < self._now - SETTLE_NS:
            self._wanted.popleft()
        if wanted > len(kept):
            for _ in range(wanted - len(kept)):
                self._start()
            return
        for number in sorted(kept, reverse=True)[: len(kept) - max(count for _, count in self._wanted)]:
            replica = self._replicas[number]
            replica.is_draining = True
            if not replica.running:
                self._stop(number)

    def _desired(self, now: int) -> int:
        """Of replicas; the rule is in the module's docstring."""
        fleet = self._fleet
        ready = (self._ready_ns - self._ready_seen_ns) * fleet.workers
        busy = (self._busy_ns - self._busy_seen_ns) / ready if ready else 0.0
        wait = self._waited_ns / self._started / fleet.objective_ns if self._started and fleet.objective_ns else 0.0
        self._busy_seen_ns, self._ready_seen_ns, self._waited_ns, self._started = self._busy_ns, self._ready_ns, 0, 0
        if (
            not fleet.replicas_min
            and not self._queue
            and not self._running
            and self._now - self._touched_ns >= SETTLE_NS
        ):
            self._wanted.clear()
            return 0
        ratio = max(busy, wait) / fleet.target
        wanted = now if abs(ratio - 1) <= TOLERANCE else ceil(now * ratio)
        wanted = min(wanted, max(2 * now, now + GROWTH_MIN))
        return min(fleet.replicas_max, max(1, fleet.replicas_min, wanted)) if now else 0

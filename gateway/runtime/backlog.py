"""The requests of all models that wait for a worker, in the order they will be served. Under the workers' lock; no timer.

Levels go first to last, 1 being the highest a caller can ask for; inside a level the earliest due time goes first. A request that
has waited `ageing_ns` climbs a level, and from level 1 to level 0, which nobody enters but by waiting: there the one that climbed
first goes first, and nobody who comes later can overtake it. So a request of level p is overtaken for at most p * `ageing_ns`.
"""

from collections import OrderedDict
from itertools import count

from gateway.runtime.lanes import Waiting
from gateway.runtime.ranking import Rank, Ranking

NEVER_NS = 1 << 62


class Backlog:
    """Each request is in its lane's ranking and in the one of all, under the same rank."""

    def __init__(self, *, levels: int, ageing_ns: int) -> None:
        self._ageing_ns = ageing_ns
        self._ranking: Ranking[Waiting] = Ranking()
        self._numbers = count()
        self._since: list[OrderedDict[Waiting, int]] = [OrderedDict() for _ in range(levels + 1)]
        self._next_climb_ns = NEVER_NS

    def __bool__(self) -> bool:
        return bool(self._ranking)

    @property
    def total_ns(self) -> int:
        """The work of all that wait, for one worker."""
        return self._ranking.total_ns

    def first(self, now_ns: int) -> Waiting:
        """Who goes next."""
        if now_ns >= self._next_climb_ns:
            self._climb(now_ns)
        return self._ranking.first

    def rank(self, waiting: Waiting, now_ns: int) -> Rank:
        """The place it would get."""
        if now_ns >= self._next_climb_ns:
            self._climb(now_ns)
        return waiting.level, waiting.due_ns if waiting.level else waiting.queued_ns, next(self._numbers)

    def ahead_ns(self, rank: Rank) -> int:
        """The work that goes before this place, for one worker."""
        return self._ranking.ahead_ns(rank)

    def enter(self, waiting: Waiting, rank: Rank, work_ns: int, now_ns: int) -> None:
        """Put it there, and count it in its lane. It ages from now on."""
        waiting.work_ns = work_ns
        waiting.lane.graph.enter(waiting)
        self._place(waiting, rank, now_ns)

    def leave(self, waiting: Waiting) -> None:
        """Take it out, wherever it is."""
        self._take(waiting)
        waiting.lane.graph.leave(waiting)

    def _place(self, waiting: Waiting, rank: Rank, since_ns: int) -> None:
        waiting.rank = rank
        waiting.lane.ranking.enter(rank, waiting, waiting.work_ns)
        self._ranking.enter(rank, waiting, waiting.work_ns)
        if waiting.level:
            self._since[waiting.level][waiting] = since_ns
            self._next_climb_ns = min(self._next_climb_ns, since_ns + self._ageing_ns)

    def _take(self, waiting: Waiting) -> None:
        assert waiting.rank is not None
        waiting.lane.ranking.leave(waiting.rank)
        self._ranking.leave(waiting.rank)
        waiting.rank = None
        if waiting.level:
            del self._since[waiting.level][waiting]

    def _climb(self, now_ns: int) -> None:
        """Lowest level first, so that one who waited for long climbs several times."""
        for level in range(len(self._since) - 1, 0, -1):
            since = self._since[level]
            while since and (climbed_ns := next(iter(since.values())) + self._ageing_ns) <= now_ns:
                self._lift(next(iter(since)), climbed_ns)
        heads = [next(iter(since.values())) for since in self._since if since]
        self._next_climb_ns = min(heads) + self._ageing_ns if heads else NEVER_NS

    def _lift(self, waiting: Waiting, climbed_ns: int) -> None:
        assert waiting.rank is not None
        number = waiting.rank[2]
        self._take(waiting)
        waiting.level -= 1
        self._place(waiting, (waiting.level, waiting.due_ns if waiting.level else climbed_ns, number), climbed_ns)

"""A sorted queue that knows how much work is ahead of any place in it. Holds items, runs nothing.

Blocks of at most `2 * BLOCK` places, each kept sorted in a plain list, beside the sum of each block's work: entering, leaving from
anywhere and summing what is ahead bisect twice and move or add at most a block, in C. The usual ends (enter last, leave first) do
not bisect at all.
"""

from bisect import bisect_left
from typing import Generic, TypeVar

BLOCK = 64

Rank = tuple[int, int, int]
"""Level (0 goes first), time, and a number of its own that no other item has. Items go in ascending order."""

T = TypeVar("T")


class _Block(Generic[T]):
    __slots__ = ("items", "ranks", "total_ns", "work_ns")

    def __init__(self, ranks: list[Rank], items: list[T], work_ns: list[int]) -> None:
        self.ranks = ranks
        self.items = items
        self.work_ns = work_ns
        self.total_ns = sum(work_ns)


class Ranking(Generic[T]):
    """All ranks in it are distinct."""

    def __init__(self) -> None:
        self._blocks: list[_Block[T]] = []
        self._tops: list[Rank] = []  # the last rank of each block
        self.total_ns = 0

    def __bool__(self) -> bool:
        return bool(self._blocks)

    @property
    def first(self) -> T:
        """The item with the lowest rank. Raises `IndexError` when empty."""
        return self._blocks[0].items[0]

    def enter(self, rank: Rank, item: T, work_ns: int) -> None:
        """Put an item in its place; `work_ns` is what it adds for those behind it."""
        self.total_ns += work_ns
        if not self._blocks:
            self._blocks.append(_Block([rank], [item], [work_ns]))
            self._tops.append(rank)
            return
        if rank > self._tops[-1]:
            at = -1
            block = self._blocks[at]
            block.ranks.append(rank)
            block.items.append(item)
            block.work_ns.append(work_ns)
            self._tops[at] = rank
        else:
            at = bisect_left(self._tops, rank)
            block = self._blocks[at]
            place = bisect_left(block.ranks, rank)
            block.ranks.insert(place, rank)
            block.items.insert(place, item)
            block.work_ns.insert(place, work_ns)
        block.total_ns += work_ns
        if len(block.ranks) > 2 * BLOCK:
            self._split(at % len(self._blocks))

    def leave(self, rank: Rank) -> None:
        """Take out the item of this rank, which is in it."""
        at = 0 if rank <= self._tops[0] else bisect_left(self._tops, rank)
        block = self._blocks[at]
        place = 0 if rank == block.ranks[0] else bisect_left(block.ranks, rank)
        assert block.ranks[place] == rank
        del block.ranks[place], block.items[place]
        work_ns = block.work_ns.pop(place)
        block.total_ns -= work_ns
        self.total_ns -= work_ns
        if block.ranks:
            self._tops[at] = block.ranks[-1]
        else:
            del self._blocks[at], self._tops[at]

    def ahead_ns(self, rank: Rank) -> int:
        """The work of all items of lower rank."""
        if not self._tops or rank > self._tops[-1]:
            return self.total_ns
        at = bisect_left(self._tops, rank)
        block = self._blocks[at]
        return sum(b.total_ns for b in self._blocks[:at]) + sum(block.work_ns[: bisect_left(block.ranks, rank)])

    def _split(self, at: int) -> None:
        block = self._blocks[at]
        rest = _Block(block.ranks[BLOCK:], block.items[BLOCK:], block.work_ns[BLOCK:])
        del block.ranks[BLOCK:], block.items[BLOCK:], block.work_ns[BLOCK:]
        block.total_ns -= rest.total_ns
        self._blocks.insert(at + 1, rest)
        self._tops[at] = block.ranks[-1]
        self._tops.insert(at + 1, rest.ranks[-1])

"""What one key with a budget has spent today. A day is UTC; the money is direct receipts, as the `Steelyard-Cost-Picousd` header
tells them: what a container costs while idle, starting or loading is never charged to a caller's budget.
"""

from datetime import UTC, datetime

from gateway.contract.words import DAY_NS


class DaySpend:
    """`own_picousd` was spent in this process, `others_picousd` in the rest of the fleet as last read. Both begin anew each day."""

    __slots__ = ("budget_picousd", "day", "others_picousd", "own_picousd")

    def __init__(self, budget_picousd: int) -> None:
        self.budget_picousd = budget_picousd
        self.day = 0
        self.own_picousd = 0
        self.others_picousd = 0

    def is_spent(self, now_ns: int) -> bool:
        """Whether nothing is left of today's budget."""
        if now_ns // DAY_NS != self.day:
            self.turn(now_ns)
        return self.own_picousd + self.others_picousd >= self.budget_picousd

    def add(self, now_ns: int, cost_picousd: int) -> None:
        """A receipt counts to the day in which its request ends."""
        if now_ns // DAY_NS != self.day:
            self.turn(now_ns)
        self.own_picousd += cost_picousd

    def turn(self, now_ns: int) -> None:
        """Begin the day that this moment is in, unless it has begun. A day never comes back."""
        day = now_ns // DAY_NS
        if day > self.day:
            self.day, self.own_picousd, self.others_picousd = day, 0, 0


def date(now_ns: int) -> str:
    """`2026-11-25`: the UTC day that this moment is in."""
    return f"{datetime.fromtimestamp(now_ns // 1_000_000_000, UTC):%Y-%m-%d}"


def reset_ns(now_ns: int) -> int:
    """When budgets begin anew: the next 00:00 UTC."""
    return (now_ns // DAY_NS + 1) * DAY_NS

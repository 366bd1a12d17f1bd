"""How much time the platform has billed so far, counted as it passes: the age by which the meter charges.

Of a container that is billed while it lives, that is its age by the clock. Where only invocations (Lambda) or stretches with
requests (Cloud Run) are billed, time stands still in between.
"""

from typing import Protocol

from gateway.accounting.billing import beyond_ns, stepped_ns
from gateway.contract.prices import Platform


class BilledTime(Protocol):
    """Nanoseconds of billed time, which never go back. Callers give moments in ascending order."""

    def begin(self, now_ns: int) -> None:
        """Something billed begins: a request, an invocation, the start, the end."""
        ...

    def end(self, began_ns: int, now_ns: int) -> None:
        """What began then is over. What the platform's step or minimum adds is billed at this moment."""
        ...

    def age_ns(self, now_ns: int) -> int:
        """All that is billed until now, whatever still lasts without its rounding up."""
        ...

    def last_ns(self, age_ns: int) -> int:
        """What is billed beyond this age when the life ends there."""
        ...


class Lifetime:
    """Every nanosecond since boot."""

    def __init__(self, rule: Platform, boot_ns: int) -> None:
        self._rule = rule
        self._boot_ns = boot_ns

    def begin(self, now_ns: int) -> None:
        """Billed anyway."""

    def end(self, began_ns: int, now_ns: int) -> None:
        """Still billed."""

    def age_ns(self, now_ns: int) -> int:
        return now_ns - self._boot_ns

    def last_ns(self, age_ns: int) -> int:
        return beyond_ns(self._rule, age_ns)


class Invocations:
    """Each by itself, however many at a time."""

    def __init__(self, rule: Platform) -> None:
        self._rule = rule
        self._over_ns = 0
        self._running = 0
        self._began_sum_ns = 0

    def begin(self, now_ns: int) -> None:
        self._running += 1
        self._began_sum_ns += now_ns

    def end(self, began_ns: int, now_ns: int) -> None:
        self._running -= 1
        self._began_sum_ns -= began_ns
        self._over_ns += stepped_ns(self._rule, now_ns - began_ns)

    def age_ns(self, now_ns: int) -> int:
        return self._over_ns + self._running * now_ns - self._began_sum_ns

    def last_ns(self, age_ns: int) -> int:
        """What ended was rounded up when it ended."""
        return 0


class Stretches:
    """The time in which at least one lasts; a stretch that begins while the step before is still being paid continues that one."""

    def __init__(self, rule: Platform) -> None:
        self._rule = rule
        self._over_ns = 0
        self._running = 0
        self._began_ns = 0
        self._least_ns = 0

    def begin(self, now_ns: int) -> None:
        self._running += 1
        if self._running == 1 and now_ns > self._began_ns + self._least_ns:
            self._over_ns += self._least_ns
            self._began_ns, self._least_ns = now_ns, 0

    def end(self, began_ns: int, now_ns: int) -> None:
        self._running -= 1
        if not self._running:
            self._least_ns = stepped_ns(self._rule, now_ns - self._began_ns)

    def age_ns(self, now_ns: int) -> int:
        lasted_ns = now_ns - self._began_ns if self._running else 0
        return self._over_ns + max(self._least_ns, lasted_ns)

    def last_ns(self, age_ns: int) -> int:
        """What ended was rounded up when it ended."""
        return 0


def counted(rule: Platform, boot_ns: int) -> BilledTime:
    """The count for a life that begins now; its start is billed until `end(boot_ns, ...)`."""
    if rule.billed == "lifetime":
        return Lifetime(rule, boot_ns)
    time: BilledTime = Invocations(rule) if rule.billed == "invocations" else Stretches(rule)
    time.begin(boot_ns)
    return time

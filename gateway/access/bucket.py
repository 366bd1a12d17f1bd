"""A token bucket in integers: at most `burst + rate * t` requests are admitted in any time t, exactly, whatever the rate.

Time comes in with each call and is any clock that does not go back. The level is kept in nanoseconds times requests per second,
so that a refill is a product and never a rounded quotient.
"""

SECOND_NS = 1_000_000_000


class TokenBucket:
    """Starts full. One request takes `SECOND_NS` of level; a nanosecond brings `rps` of it."""

    __slots__ = ("_full", "_level", "_now_ns", "burst", "rps")

    def __init__(self, rps: int, burst: int, now_ns: int) -> None:
        self.rps = rps
        self.burst = burst
        self._full = self._level = burst * SECOND_NS
        self._now_ns = now_ns

    def take(self, now_ns: int) -> int:
        """0 when a request was counted, else the nanoseconds until one would be; nothing is counted then."""
        elapsed_ns = now_ns - self._now_ns
        if elapsed_ns > 0:
            self._now_ns = now_ns
            self._level = min(self._full, self._level + elapsed_ns * self.rps)
        if self._level >= SECOND_NS:
            self._level -= SECOND_NS
            return 0
        return -(-(SECOND_NS - self._level) // self.rps)

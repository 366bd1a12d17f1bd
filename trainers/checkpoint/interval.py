"""How long to train between two checkpoints: Young's and Daly's first-order optimum, clamped. Pure arithmetic, called by the saver.

sqrt(2 * cost * MTBF) minimises the sum of the time spent on saving and the expected time of work lost. J. W. Young, "A first
order approximation to the optimum checkpoint interval", CACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006.
"""

import math

import msgspec

MTBF_S = 4 * 3600.0
"""Mean time between interruptions unless told otherwise: a pessimistic guess for spot machines with GPUs, of which at most a fifth
is interrupted in a month. At this value a save of 5 s happens every 6 minutes."""

INTERVAL_S_MIN = 30.0  # below it, saving would crowd the store and the training for a few seconds of work
INTERVAL_S_MAX = 900.0  # nobody should lose more than a quarter of an hour, however slow a save is


class Interval(msgspec.Struct, frozen=True):
    """What the operator may choose; all in seconds."""

    mtbf_s: float = MTBF_S
    min_s: float = INTERVAL_S_MIN
    max_s: float = INTERVAL_S_MAX

    def __post_init__(self) -> None:
        if not (self.mtbf_s > 0 and 0 <= self.min_s <= self.max_s):
            raise ValueError("the interval needs 0 < mtbf_s and 0 <= min_s <= max_s")


DEFAULT = Interval()


def interval_s(cost_s: float, interval: Interval = DEFAULT) -> float:
    """Seconds from the start of one save to the start of the next, when a save takes `cost_s` (measured, at least 0)."""
    return min(interval.max_s, max(interval.min_s, math.sqrt(2 * cost_s * interval.mtbf_s)))

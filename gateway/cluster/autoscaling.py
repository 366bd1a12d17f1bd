"""How many gateways a local cluster should have: a demonstration of scaling on `steelyard_saturation_ratio`, and no more than that.

In production the platform decides (Application Auto Scaling, a HorizontalPodAutoscaler, KEDA, Knative), on the same gauge. This
knows one machine, forgets everything when it ends, and nobody but the person at the terminal waits for it.
"""

import math
import re
from collections import deque
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.errors import SettingsError

TARGET = 0.6
"""Where the mean saturation is kept: a gateway more takes a second or two to come, and 40 % of room lasts that long."""

TOLERANCE = 0.1
"""Less than this from the target is close enough, as for Kubernetes's autoscaler: a gateway more or less would not be closer."""

SETTLE_S = 20.0
"""A gateway goes when none of this time needed it: models move with every change, and a lull is often short."""

IDLE_S = 30.0
"""Without a request for so long the last one goes too, where none is allowed."""

GATEWAYS_MAX = 64


class Bounds(msgspec.Struct, frozen=True):
    """How few and how many gateways there may be."""

    fewest: Annotated[int, Meta(ge=0)]
    most: Annotated[int, Meta(ge=1)]


def parsed(text: str) -> Bounds:
    """`0..4`. Raises `SettingsError`."""
    found = re.fullmatch(r"(\d{1,3})\.\.(\d{1,3})", text, re.ASCII)
    if found is None or not int(found[1]) <= int(found[2]) <= GATEWAYS_MAX or not int(found[2]):
        raise SettingsError(f"--autoscale {text!r}: write FEWEST..MOST, such as 0..4; at most {GATEWAYS_MAX}")
    return Bounds(int(found[1]), int(found[2]))


class Autoscaler:
    """Told every second how full the gateways are, it says how many there should be."""

    def __init__(self, bounds: Bounds, now_s: float, *, idle_s: float = IDLE_S) -> None:
        self._bounds = bounds
        self._idle_s = idle_s
        self._asked: deque[tuple[float, int]] = deque()
        self._requests = 0
        self._busy_s = now_s

    def decide(self, now_s: float, *, running: int, saturation: float, requests: int, waiting: int) -> int:
        """`saturation`: the mean over `running` gateways. `requests`: answered and refused so far, a number that only grows while
        gateways stay; `waiting`: held back because there is no gateway.
        """
        if requests != self._requests or waiting:
            self._busy_s, self._requests = now_s, requests
        needed = self._needed(now_s, running, saturation, waiting)
        self._asked.append((now_s, needed))
        while self._asked[0][0] < now_s - SETTLE_S:
            self._asked.popleft()
        # Up at once, down to the most that was needed lately.
        wanted = max(needed, min(running, max(count for _, count in self._asked)))
        return max(self._bounds.fewest, min(wanted, self._bounds.most))

    def _needed(self, now_s: float, running: int, saturation: float, waiting: int) -> int:
        if waiting and not running:
            return 1
        if now_s - self._busy_s >= self._idle_s:
            self._asked.clear()  # the idle time has been the waiting
            return 0
        ratio = saturation / TARGET
        if abs(ratio - 1) <= TOLERANCE:
            return running
        # At least one: somebody asked within the idle time. At most twice as many at a time: the next look is a second away.
        return max(1, min(math.ceil(running * ratio), 2 * running)) if running else 0

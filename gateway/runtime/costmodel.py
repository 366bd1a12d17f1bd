"""How long a batch will run: `base + row * rows + row_length * rows * length`, as published and as this host turns out to be.

The published figures are the prior of a Kalman filter whose state is the three coefficients (a random walk) and whose measurements
are runs. Everything is relative to the prediction, as in the published fit: a run of 50 us and one of 50 ms count alike. Memory is
constant. One per graph; called on the event loop.

Sources. Filter: R. E. Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960. Robustness: the innovation is
clipped at `CLIP` of its own standard deviations, after C. J. Masreliez and R. D. Martin, "Robust Bayesian Estimation for the Linear
Model and Robustifying the Kalman Filter", IEEE TAC 22(3), 1977; a preempted run moves the estimate by a few percent, a slower
machine moves it all the way in some tens of runs. Spread: mean absolute deviation, after V. Jacobson, "Congestion Avoidance and
Control", SIGCOMM 1988. The gain settles near `DRIFT * PRIOR_SPREAD / spread`, about a tenth: too little for jitter to swing it.
"""

from gateway.contract.manifest import BatchCost

PRIOR_SPREAD = 0.5
"""A published coefficient may well be off by half: the publisher's CPU is not ours."""

FLOOR_SPREAD = 0.1
"""Of a one-row run: how far a coefficient that was published as 0 may be off."""

DRIFT = 0.02
"""Of the prior's spread, per run: hosts get busy and throttled. The prior's variance is also the ceiling, so that what is not
observed for long (only one batch size comes) does not become a wild guess."""

CLIP = 2.0
SPREAD_MIN, SPREAD_MAX = 0.05, 0.5
SPREAD_GAIN = 1 / 32
MEAN_TO_SIGMA = 1.25  # standard deviation over mean absolute deviation, for a normal distribution

GROWTH_GAIN_MIN = 1 / 32
"""A larger batch than this pays for makes its members wait for each other, and the next ones for all of them, for nothing."""

ROWS_ENOUGH_MIN = 8
"""Batches of several sizes are seen under load whatever is believed, so that a wrong belief about the base is found out."""

ROWS_MAX = 1 << 30

Triple = tuple[float, float, float]


class CostModel:
    """Times in nanoseconds, of the worker's thread from the batch in hand to the answers in hand."""

    def __init__(self, published: BatchCost | None, *, has_length: bool) -> None:
        self._has_length = has_length
        self.base_ns = self.row_ns = self.row_length_ns = 0.0
        self._spread = 0.1
        self.is_known = published is not None
        if published is not None:
            self._begin(published.base_ns, published.row_ns, published.row_length_ps / 1000, PRIOR_SPREAD, length=1)

    def run_ns(self, rows: int, length: int) -> float:
        """The expected time of one run; 0 while nothing is known."""
        return self.base_ns + self.per_row_ns(length) * rows

    def per_row_ns(self, length: int) -> float:
        """What one more row of this length adds."""
        return self.row_ns + self.row_length_ns * length

    def rows_enough(self, length: int, hop_ns: float) -> int:
        """The batch beyond which another row saves next to nothing: base and hand-over are `GROWTH_GAIN_MIN` of it."""
        per_row_ns = self.per_row_ns(length)
        if not self.is_known or per_row_ns <= 0:
            return ROWS_MAX
        return min(max(ROWS_ENOUGH_MIN, int((self.base_ns + hop_ns) / per_row_ns / GROWTH_GAIN_MIN)), ROWS_MAX)

    @property
    def caution(self) -> float:
        """Two standard deviations of a run, relative: what to add to a single run's time before promising it."""
        return 2 * self._spread

    def is_within(self, rows: int, limit_ns: float) -> bool:
        """Whether a run of so many rows is expected to end within the limit, whatever their length: never if that matters."""
        return self.is_known and not self._has_length and self.base_ns + self.row_ns * rows <= limit_ns

    def correct(self, rows: int, length: int, measured_ns: int) -> None:
        """Learn from a run that went well. The first one is believed when nothing was published."""
        if not self.is_known:
            share = max(measured_ns, 1) / (3 if self._has_length else 2)
            self._begin(share, share / rows, share / rows / length, 1.0, length=length)
            self.is_known = True
            return
        expected_ns = max(self.run_ns(rows, length), 1.0)
        seen = (1 / expected_ns, rows / expected_ns, rows * length / expected_ns if self._has_length else 0.0)
        self._filter(seen, measured_ns / expected_ns - 1)

    def _begin(self, base_ns: float, row_ns: float, row_length_ns: float, spread: float, *, length: int) -> None:
        self.base_ns, self.row_ns = float(base_ns), float(row_ns)
        self.row_length_ns = float(row_length_ns) if self._has_length else 0.0
        floor_ns = FLOOR_SPREAD * max(self.run_ns(1, length), 1.0)
        self._ceiling: Triple = (
            (spread * self.base_ns + floor_ns) ** 2,
            (spread * self.row_ns + floor_ns) ** 2,
            (spread * self.row_length_ns + floor_ns / length) ** 2 if self._has_length else 0.0,
        )
        aa, bb, cc = self._ceiling
        self._covariance: tuple[Triple, Triple, Triple] = ((aa, 0.0, 0.0), (0.0, bb, 0.0), (0.0, 0.0, cc))

    def _filter(self, seen: Triple, innovation: float) -> None:
        """One step of the filter; `seen` are the regressors and `innovation` the surprise, both relative to the prediction."""
        covariance = self._covariance
        reach = tuple(sum(p * x for p, x in zip(row, seen, strict=True)) for row in covariance)
        variance = sum(r * x for r, x in zip(reach, seen, strict=True)) + self._spread**2
        limit = CLIP * variance**0.5
        clipped = min(max(innovation, -limit), limit)
        gain = [r / variance for r in reach]
        self.base_ns = max(0.0, self.base_ns + gain[0] * clipped)
        self.row_ns = max(0.0, self.row_ns + gain[1] * clipped)
        self.row_length_ns = max(0.0, self.row_length_ns + gain[2] * clipped)
        self._covariance = self._widened(
            [[p - g * r for p, r in zip(row, reach, strict=True)] for row, g in zip(covariance, gain, strict=True)]
        )
        spread = self._spread + SPREAD_GAIN * (MEAN_TO_SIGMA * abs(clipped) - self._spread)
        self._spread = min(max(spread, SPREAD_MIN), SPREAD_MAX)

    def _widened(self, covariance: list[list[float]]) -> tuple[Triple, Triple, Triple]:
        """With the drift added, and scaled back, rows and columns alike, where a variance passes its ceiling."""
        scale = []
        for i, ceiling in enumerate(self._ceiling):
            covariance[i][i] += DRIFT**2 * ceiling
            scale.append((ceiling / covariance[i][i]) ** 0.5 if covariance[i][i] > ceiling else 1.0)
        a, b, c = (
            (covariance[i][0] * s * scale[0], covariance[i][1] * s * scale[1], covariance[i][2] * s * scale[2])
            for i, s in enumerate(scale)
        )
        return (a, b, c)

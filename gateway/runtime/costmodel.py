"""How long a batch will run: `base + row * rows + row_length * rows * length`, as published and as this host turns out to be.

The published figures are the prior of a Kalman filter whose state is the three coefficients (a random walk) and whose measurements
are runs. Everything is relative to the prediction, as in the published fit: a run of 50 us and one of 50 ms count alike. Memory is
constant. One per graph; corrected under the workers' lock.

Sources. Filter: R. E. Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960. Robustness: the surprise of a run
is clipped at `CLIP` of its own standard deviations, after C. J. Masreliez and R. D. Martin, "Robust Bayesian Estimation for the
Linear Model and Robustifying the Kalman Filter", IEEE TAC 22(3), 1977: a preempted run moves the estimate by a few percent.
`SHIFT_RUNS` clipped surprises in a row, all slower or all faster, are not outliers but another speed, and the mildest of them is
believed. Spread: mean absolute deviation, after V. Jacobson, "Congestion Avoidance and Control", SIGCOMM 1988. The gain settles at
about `DRIFT`: too little for jitter to swing the estimate.
"""

from collections.abc import Sequence

from gateway.contract.manifest import BatchCost, Latency

PRIOR_SPREAD = 0.5
"""A published coefficient may well be off by half: the publisher's CPU is not ours. Doubt never grows beyond that, so that what is
not observed for long (only one batch size comes) does not become a wild guess."""

FLOOR_SPREAD = 0.1
"""Of a one-row run: how far a coefficient that is believed to be 0 may be off."""

DRIFT = 0.1
"""Of the spread of runs, per run: how far a coefficient may move, for hosts get busy and throttled."""

CLIP = 2.0
SHIFT_RUNS = 6
"""Where 3 of 100 runs are preempted, four in a row come about once in a million runs (0.03 ** 4), six once in a billion."""
SPREAD_MIN, SPREAD_MAX = 0.05, 0.5
SPREAD_GAIN = 1 / 32
MEAN_TO_SIGMA = 1.25  # standard deviation over mean absolute deviation, for a normal distribution

GROWTH_GAIN_MIN = 1 / 32
"""A larger batch than this pays for makes its members wait for each other, and the next ones for all of them, for nothing."""

ROWS_ENOUGH_MIN = 8
"""Batches of several sizes are seen under load whatever is believed, so that a wrong belief about the base is found out."""

ROWS_MAX = 1 << 30

HOP_NS = 100_000
"""What handing a batch to a worker takes, until it has been seen (measured: 20 us to one that has just ended a run)."""

Triple = tuple[float, float, float]


def rows_worth(latency: Sequence[Latency]) -> int:
    """The smallest batch published whose rows, hand-over included, cost next to the least: a straight line cannot know that.

    Activations that fit the cache row by row and not eight at a time make the rows of a convolution 15 % dearer in a batch. One
    batch size alone says nothing, and then everything is allowed.
    """
    longest = [cell for cell in latency if cell.length == max(cell.length for cell in latency)]
    if len(longest) < 2:
        return ROWS_MAX
    costs = {cell.batch_rows: (cell.p50_ns + HOP_NS) / cell.batch_rows for cell in longest}
    enough = min(costs.values()) * (1 + GROWTH_GAIN_MIN)
    least = min(rows for rows, cost in costs.items() if cost <= enough)
    return ROWS_MAX if least == max(costs) else least


class CostModel:
    """Times in nanoseconds, of the worker's thread from the batch in hand to the answers in hand."""

    def __init__(self, published: BatchCost | None, *, has_length: bool) -> None:
        self._has_length = has_length
        self.base_ns = self.row_ns = self.row_length_ns = 0.0
        self.is_known = published is not None
        self._length = 1
        self._spread = 0.1
        self._streak, self._mildest = 0, 0.0
        if published is not None:
            self._begin(published.base_ns, published.row_ns, published.row_length_ps / 1000, PRIOR_SPREAD)

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
        if self._has_length:
            self._length = length
        if not self.is_known:
            share_ns = max(measured_ns, 1) / (3 if self._has_length else 2)
            self._begin(share_ns, share_ns / rows, share_ns / rows / length, 1.0)
            self.is_known = True
            return
        expected_ns = max(self.run_ns(rows, length), 1.0)
        z = rows * length / expected_ns if self._has_length else 0.0
        self._filter(1 / expected_ns, rows / expected_ns, z, measured_ns / expected_ns - 1)

    def _begin(self, base_ns: float, row_ns: float, row_length_ns: float, spread: float) -> None:
        self.base_ns, self.row_ns = float(base_ns), float(row_ns)
        self.row_length_ns = float(row_length_ns) if self._has_length else 0.0
        self._variance = self._within(spread)
        self._covariance = (0.0, 0.0, 0.0)

    def _within(self, share: float) -> Triple:
        """The variances of coefficients that are off by this share of themselves, or of a little of a one-row run."""
        floor_ns = FLOOR_SPREAD * max(self.run_ns(1, self._length), 1.0)
        least_c_ns = floor_ns / self._length if self._has_length else 0.0
        return (
            (share * (self.base_ns + floor_ns)) ** 2,
            (share * (self.row_ns + floor_ns)) ** 2,
            (share * (self.row_length_ns + least_c_ns)) ** 2,
        )

    def _filter(self, x: float, y: float, z: float, surprise: float) -> None:
        """One step. `x`, `y`, `z` are what base, rows and rows times length are multiplied by, relative to the prediction as the
        surprise is. Written out: as matrices it takes four times as long, once per run.
        """
        (aa, bb, cc), (ab, ac, bc) = self._variance, self._covariance
        reach_a, reach_b, reach_c = aa * x + ab * y + ac * z, ab * x + bb * y + bc * z, ac * x + bc * y + cc * z
        variance = reach_a * x + reach_b * y + reach_c * z + self._spread**2
        limit = CLIP * variance**0.5
        clipped = min(max(surprise, -limit), limit)
        if self._has_shifted(surprise, is_clipped=clipped != surprise):
            scale = 1 + self._mildest
            self._begin(self.base_ns * scale, self.row_ns * scale, self.row_length_ns * scale, PRIOR_SPREAD)
            return
        gain_a, gain_b, gain_c = reach_a / variance, reach_b / variance, reach_c / variance
        self.base_ns = max(0.0, self.base_ns + gain_a * clipped)
        self.row_ns = max(0.0, self.row_ns + gain_b * clipped)
        self.row_length_ns = max(0.0, self.row_length_ns + gain_c * clipped)
        weight = 1.0 if clipped == surprise else clipped / surprise  # what was not believed has not made us surer
        loss_a, loss_b, loss_c = weight * reach_a, weight * reach_b, weight * reach_c
        self._widen(
            (aa - gain_a * loss_a, bb - gain_b * loss_b, cc - gain_c * loss_c),
            (ab - gain_a * loss_b, ac - gain_a * loss_c, bc - gain_b * loss_c),
        )
        spread = self._spread + SPREAD_GAIN * (MEAN_TO_SIGMA * abs(clipped) - self._spread)
        self._spread = min(max(spread, SPREAD_MIN), SPREAD_MAX)

    def _has_shifted(self, surprise: float, *, is_clipped: bool) -> bool:
        """Whether this is the last of `SHIFT_RUNS` clipped surprises of one sign."""
        if not is_clipped:
            self._streak = 0
            return False
        if self._streak and (surprise > 0) == (self._mildest > 0):
            self._streak += 1
            self._mildest = min(self._mildest, surprise, key=abs)
        else:
            self._streak, self._mildest = 1, surprise
        if self._streak < SHIFT_RUNS:
            return False
        self._streak = 0
        return True

    def _widen(self, variance: Triple, covariance: Triple) -> None:
        """Add the drift, and scale a coefficient back, its covariances too, where its variance passes the ceiling."""
        (aa, bb, cc), (ab, ac, bc) = variance, covariance
        drift_a, drift_b, drift_c = self._within(DRIFT * self._spread)
        top_a, top_b, top_c = self._within(PRIOR_SPREAD)
        aa, bb, cc = aa + drift_a, bb + drift_b, cc + drift_c
        scale_a = (top_a / aa) ** 0.5 if aa > top_a else 1.0
        scale_b = (top_b / bb) ** 0.5 if bb > top_b else 1.0
        scale_c = (top_c / cc) ** 0.5 if cc > top_c else 1.0
        self._variance = (aa * scale_a**2, bb * scale_b**2, cc * scale_c**2)
        self._covariance = (ab * scale_a * scale_b, ac * scale_a * scale_c, bc * scale_b * scale_c)

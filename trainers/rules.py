"""What a challenger must keep to take over from the champion, as a recipe states it.

Numbers only; `trainers.promotion` applies them.
"""

from collections.abc import Mapping

import msgspec


class Rules(msgspec.Struct, frozen=True):
    """The defaults let a retraining pass that is no worse, within what so many rows can tell.

    `margin`: the lower end of every metric's gain, a 95 % interval, must not lie further below 0; `margins` by metric instead.
    Errors in the target's unit (rmse, mae) count as shares of the champion's. `must_be_better`: the first metric must surely
    gain as well. `floors`: what a metric must reach in any case, or for an error may be at most.
    A budget is the candidate over the champion, both measured now; None neither measures nor limits it.
    """

    margin: float = 0.01
    margins: Mapping[str, float] = {}
    must_be_better: bool = False
    floors: Mapping[str, float] = {}
    slice_margin: float = 0.02
    slice_rows_min: int = 200
    """Of fewer rows a slice says too little about itself."""
    rows_min: int = 100
    """Fewer rows than that decide nothing."""
    newest_rows_max: int = 10_000
    frozen_rows_max: int = 5_000
    """How many test rows travel with the artifact for later challengers; 0 where they must not leave the training."""
    train_rows_ratio_min: float = 0.5
    train_rows_ratio_max: float = 3.0
    label_shift_max: float = 0.1
    """The largest change of a label's share, or of the mean target in the champion's standard deviations."""
    overlap_max: float = 0.05
    """The share of the newest rows that may occur in training: more is a leak."""
    latency_p50_ratio_max: float | None = 1.25
    latency_p99_ratio_max: float | None = 2.0
    load_ratio_max: float | None = 1.5
    resident_ratio_max: float | None = 1.5
    cost_ratio_max: float | None = 1.25
    cooldown_s: float = 0.0
    """Between two versions of one alias."""
    promotions_per_day_max: int = 24
    """More are a loop gone wild, and not a schedule."""

    @property
    def budgets(self) -> dict[str, float]:
        """The limits that are set, by what is measured."""
        limits = {
            "latency_p50": self.latency_p50_ratio_max,
            "latency_p99": self.latency_p99_ratio_max,
            "load": self.load_ratio_max,
            "resident": self.resident_ratio_max,
            "cost_1k": self.cost_ratio_max,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}

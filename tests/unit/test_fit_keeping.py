"""What the training loop asks of its keeper: when a slow save is a reason to stop, and when it no longer matters."""

import pytest
import torch

from trainers.checkpoint.saver import Spent
from trainers.checkpoint.state import Snapshot, capture
from trainers.errors import SpecError
from trainers.fit.keeping import Keeper, Stops
from trainers.interruption.signals import Interruption
from trainers.runs.progress import Tracker

GRACE_S = 30.0


class SlowSaver:
    """One save, which takes longer than the platform would wait; it ends at the look numbered `at`."""

    def __init__(self, at: int) -> None:
        self.spent = Spent()
        self._looks, self._at = 0, at

    def due(self, now: float) -> bool:
        self._looks += 1
        if self._looks == self._at:
            self.spent = Spent(saves=1, last_save_s=GRACE_S)
        return self._looks == 1

    def offer(self, snapshot: Snapshot, now: float) -> bool:
        return True

    def flush(self, now: float) -> None:
        self.spent = Spent(saves=1, last_save_s=GRACE_S)


def snapshot() -> Snapshot:
    return capture(1, {"module": torch.nn.Linear(1, 1)}, {})


def keeper(saver: SlowSaver) -> Keeper:
    return Keeper(None, saver, Stops(Interruption()), Tracker(), grace_s=GRACE_S)  # type: ignore[arg-type]  # what it asks


def test_a_save_that_cannot_fit_into_the_grace_ends_training_when_it_was_measured():
    kept = keeper(SlowSaver(at=2))
    kept.begins(0, 3)
    assert kept.after_step(1, 1, snapshot) == "go on"
    with pytest.raises(SpecError, match=r"takes 30.0 s to save"):
        kept.after_step(2, 1, snapshot)


def test_a_training_that_is_done_is_not_thrown_away_for_a_slow_save():
    kept = keeper(SlowSaver(at=9))
    kept.begins(0, 1)
    kept.after_step(1, 1, snapshot)
    kept.ends()

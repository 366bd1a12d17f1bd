"""The tiny job as a recipe whose module sends its own process a signal at a step that the environment names.

`DOOM=KILL:17` kills at the 17th training step of this process. The weights do not depend on it.
"""

import os
import signal
import time

import msgspec
import torch

from tests.support.tinyjob import TinyModule, tiny_data, tiny_job
from trainers.job import Data, TrainJob

EPOCHS = 6
STEP_S = 0.05
"""A step of a model worth training takes about as long; saves then fall into the midst of it."""

STEPS = EPOCHS * 10  # 2400 rows in batches of 256


class Doomed(TinyModule):
    """With dropout and batch normalization, so that every kind of state matters."""

    def __init__(self, known: list[int]) -> None:
        super().__init__(known)
        self.layers.insert(1, torch.nn.BatchNorm1d(32))
        self.layers.insert(2, torch.nn.Dropout(0.2))
        self.taken = 0
        self.doom, _, at = os.environ.get("DOOM", "").partition(":")
        self.at = int(at or 0)

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(STEP_S)
            self.taken += 1
            if self.taken == self.at:
                os.kill(os.getpid(), signal.Signals[f"SIG{self.doom}"])
        return super().forward(categories, numbers)


def doomed_job() -> TrainJob:
    job = tiny_job()
    fit = msgspec.structs.replace(job.fit, epochs=EPOCHS, patience=EPOCHS)
    return msgspec.structs.replace(job, model="doomed", load=tiny_data, module=doomed_module, fit=fit)


def doomed_module(data: Data) -> torch.nn.Module:
    return Doomed([len(known) for known in data.vocabularies.values()])

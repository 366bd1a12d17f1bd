"""A small real training with everything that a checkpoint must hold: dropout, BatchNorm, AdamW, a cosine schedule, an average
of the weights, noise from torch, numpy and Python. What comes out is compared by the hash of all weights.

The data order is a pure function of (seed, epoch), so that the step alone says where to go on.
"""

import copy
import hashlib
import random

import numpy as np
import torch
from torch import nn

from trainers.checkpoint.state import RandomState, Snapshot, Stateful, capture, restore

STEPS = 120
ROWS = 256
BATCH = 32
PARTS = ("model", "average", "optimizer", "schedule", "random")


class SmallTraining:
    """`seed` decides everything; after `STEPS` steps it is done."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        torch.use_deterministic_algorithms(True)
        self._seed = seed
        self._features, self._labels = torch.randn(ROWS, 12), torch.randint(0, 3, (ROWS,))
        self.model = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 3))
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.02)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)
        self.steps = 0

    def step(self) -> None:
        epoch, position = divmod(self.steps, ROWS // BATCH)
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self._seed * 1000 + epoch))
        batch = order[position * BATCH : (position + 1) * BATCH]
        features = self._features[batch] + 0.1 * torch.randn(BATCH, 12)
        features = features * (0.9 + 0.1 * random.random()) + float(np.random.normal(0, 0.01))
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(features), self._labels[batch]).backward()
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            for kept, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(current, 0.05)
        self.steps += 1

    def run_to(self, step: int) -> "SmallTraining":
        while self.steps < step:
            self.step()
        return self

    def parts(self) -> dict[str, Stateful]:
        """All but the random number generators, which are always there."""
        return {
            "model": self.model,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def snapshot(self) -> Snapshot:
        return capture(self.steps, self.parts(), {"epoch": self.steps * BATCH // ROWS, "best": float("-inf")})

    def resume(self, snapshot: Snapshot, *, without: str = "") -> "SmallTraining":
        """Go on from there; the part `without` stays as it is in a new training, as if it had been forgotten."""
        fresh = SmallTraining(self._seed)
        generators = RandomState().state_dict()
        parts = self.parts() | {name: part for name, part in fresh.parts().items() if name == without}
        restore(snapshot, parts)
        if without == "random":
            RandomState().load_state_dict(generators)
        self.steps = snapshot.step
        return self

    def weight_hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in [*self.model.state_dict().items(), *self.average.state_dict().items()]:
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

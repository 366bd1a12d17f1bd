"""A complete training job of a few thousand synthetic rows: two string columns, three numbers (one with gaps), a real torch module.

For the tests of the training stages, where a second of training must be enough. Tests that only need a published model use
`tests.support.models` instead.
"""

import hashlib

import numpy as np
import torch
from torch import nn

from gateway.contract.manifest import DataSource, Examples
from tests.support.models import CARRIERS, ORIGINS, TINY_SIGNATURE
from trainers import objectives
from trainers.baseline import logistic_baseline
from trainers.job import Baseline, Data, Fit, Limits, Split, TrainJob

ROWS = 4000
VOCABULARIES = {"carrier": CARRIERS, "origin": ORIGINS}


def tiny_job(*, limits: Limits | None = None, seed: int = 0) -> TrainJob:
    return TrainJob(
        model="tiny",
        description="Is a synthetic flight late?",
        objective=objectives.binary(),
        load=tiny_data,
        module=tiny_module,
        fit=Fit(epochs=2, batch_rows=256, learning_rate=0.01, weight_decay=0.0, seed=seed),
        baseline=Baseline("logistic", logistic_baseline),
        limits=limits or Limits(),
        parameters={"hidden": 32},
    )


def tiny_data(seed: int = 0) -> Data:
    """Carrier, hour and wind decide, with noise; some carriers are not in the vocabulary and some winds are missing."""
    rng = np.random.default_rng(seed)
    carriers = rng.choice([*CARRIERS, "ZZ"], ROWS, p=[0.4, 0.3, 0.25, 0.05])
    origins = rng.choice(ORIGINS, ROWS)
    numbers = np.stack([rng.integers(0, 24, ROWS), rng.gamma(4, 250, ROWS), rng.gamma(2, 5, ROWS)], axis=1)
    logits = 0.2 * (numbers[:, 0] - 14) + 0.1 * (numbers[:, 2] - 10) + np.where(carriers == "B6", 1.0, -0.5)
    targets = (rng.random(ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    numbers[rng.random(ROWS) < 0.05, 2] = np.nan
    inputs = {
        "categories": np.stack([carriers, origins], axis=1).astype(object),
        "numbers": numbers.astype(np.float32),
    }
    splits = [
        Split({name: values[start:stop] for name, values in inputs.items()}, targets[start:stop])
        for start, stop in ((0, 2400), (2400, 3200), (3200, ROWS))
    ]
    source = DataSource(
        name="synthetic",
        sha256=hashlib.sha256(inputs["numbers"].tobytes()).hexdigest(),
        rows=ROWS,
        first="2026-01-01",
        last="2026-03-31",
    )
    return Data(
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        sources=(source,),
        examples=_examples(splits[2]),
        signature=TINY_SIGNATURE,
        vocabularies=VOCABULARIES,
    )


def tiny_module(data: Data) -> nn.Module:
    return TinyModule([len(known) for known in data.vocabularies.values()])


class TinyModule(nn.Module):
    """Embeddings and filled, scaled numbers into two hidden layers. Category 0 is "other"; a missing number counts as 0."""

    scale: torch.Tensor

    def __init__(self, known: list[int], hidden: int = 32) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(count + 1, 4) for count in known)
        self.register_buffer("scale", torch.tensor([0.1, 0.001, 0.1]))
        self.layers = nn.Sequential(
            nn.Linear(4 * len(known) + 3, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        embedded = [embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings)]
        filled = torch.where(torch.isnan(numbers), torch.zeros_like(numbers), numbers * self.scale)
        logits: torch.Tensor = self.layers(torch.cat([*embedded, filled], dim=1))
        return logits.squeeze(1)


def _examples(split: Split, count: int = 8) -> Examples:
    names = [column.name for tensor in TINY_SIGNATURE.inputs for column in tensor.columns]
    rows = []
    for strings, floats in zip(split.inputs["categories"][:count], split.inputs["numbers"][:count], strict=True):
        values = [
            *map(str, strings),
            int(floats[0]),
            float(floats[1]),
            None if np.isnan(floats[2]) else float(floats[2]),
        ]
        rows.append(dict(zip(names, values, strict=True)))
    return Examples(rows=tuple(rows), outcomes=tuple(bool(target) for target in split.targets[:count]))

"""The network behind the `flights` recipe: embeddings, scaled numbers and clock times through two wide layers.

It takes numbers as a caller sends them, NaN included, and scales and fills them with what it saw in the training months. The month
is accepted and has no weight: nine training months cannot say what November does, and what lasts of a season comes with the
temperature.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.job import Data

HIDDEN = 192
DROPOUT = 0.2
EMBEDDING_WIDTHS = {"carrier": 8, "origin": 4, "dest": 12}
UNKNOWN_RATE = 0.02
"""Share of the categories that training replaces by 0, so that "other" comes to mean an average one."""
SCALED = ("distance", "temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
OUTLIER_STD = 5.0
"""Scaled numbers stop here: a storm stronger than any in training counts as the strongest."""
HOURS = 24
HOUR_MINUTES = 60.0
DAY_MINUTES = 1440.0


class FlightsModule(nn.Module):
    """(category indices int64 [rows, 3], numbers float32 [rows, 14]) -> logits [rows]."""

    mean: Tensor
    std: Tensor
    hours: Tensor
    weekdays: Tensor

    def __init__(self, data: Data) -> None:
        super().__init__()
        names = [
            column.name for tensor in data.signature.inputs if tensor.datatype == "FP32" for column in tensor.columns
        ]
        self.position = {name: i for i, name in enumerate(names)}
        self.register_buffer("hours", torch.arange(HOURS) * HOUR_MINUTES)
        self.register_buffer("weekdays", torch.arange(1.0, 8.0))
        numbers = torch.from_numpy(data.train.inputs["numbers"])
        mean, std = _moments(self._measured(numbers))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.embeddings = nn.ModuleList(
            nn.Embedding(len(known) + 1, EMBEDDING_WIDTHS[name]) for name, known in data.vocabularies.items()
        )
        width = sum(EMBEDDING_WIDTHS.values()) + self._features(numbers[:1]).shape[1]
        self.layers = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, 1),
        )  # fmt: skip

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        if self.training:
            categories = categories.where(torch.rand(categories.shape, device=categories.device) >= UNKNOWN_RATE, 0)
        embedded = [embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings)]
        logits: Tensor = self.layers(torch.cat([*embedded, self._features(numbers)], dim=1))
        return logits.squeeze(1)

    def _features(self, numbers: Tensor) -> Tensor:
        """float32 [rows, 94], all finite: what the first layer sees of the numbers."""
        measured = self._measured(numbers)
        missing = measured.isnan()
        scaled = ((measured - self.mean) / self.std).clamp(-OUTLIER_STD, OUTLIER_STD).masked_fill(missing, 0.0)
        departure, arrival = self._column(numbers, "departure_minute"), self._column(numbers, "arrival_minute")
        weekday = (self._column(numbers, "weekday") == self.weekdays).float()
        parts = (scaled, missing.float(), self._clock(departure), self._clock(arrival), weekday, self._wind(numbers))
        return torch.cat(parts, dim=1)

    def _measured(self, numbers: Tensor) -> Tensor:
        """The columns that are scaled. Rain counts by its logarithm: the first tenth of an inch matters most."""
        columns = [self._column(numbers, name) for name in SCALED]
        rain = SCALED.index("precip")
        columns[rain] = torch.log1p(20 * columns[rain].clamp(min=0))
        return torch.cat(columns, dim=1)

    def _clock(self, minute: Tensor) -> Tensor:
        """A time of day as weights on the 24 full hours: 13:15 is 0.75 of 13 and 0.25 of 14, and midnight joins both ends."""
        apart = (minute - self.hours).abs()
        apart = torch.minimum(apart, DAY_MINUTES - apart)
        return functional.relu(1 - apart / HOUR_MINUTES).nan_to_num(0.0)

    def _wind(self, numbers: Tensor) -> Tensor:
        """The wind as a vector, since runways have a direction; zero when calm or unknown. In tens of miles per hour."""
        radians = self._column(numbers, "wind_dir") * (math.pi / 180)
        vector = torch.cat([radians.sin(), radians.cos()], dim=1) * self._column(numbers, "wind_speed") / 10
        return vector.nan_to_num(0.0)

    def _column(self, numbers: Tensor, name: str) -> Tensor:
        """[rows, 1]"""
        i = self.position[name]
        return numbers[:, i : i + 1]


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over its present values."""
    mean = values.nanmean(dim=0)
    return mean, (values - mean).square().nanmean(dim=0).sqrt()

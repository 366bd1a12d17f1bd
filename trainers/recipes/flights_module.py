"""The network behind the `flights` recipe: what the weather is, times how exposed this flight is to it.

One tower sees the flight, one the weather, and they meet in products at the end. A single network over everything instead learns
which days of training went wrong: average precision 0.455 on the test months, where this one has 0.465 (means of two and three
seeds). Numbers come as a caller sends them, NaN included; they are filled and scaled with what the training months held.

The month is accepted and has no weight: nine months cannot say what November does, and what lasts of a season comes with the
temperature.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.job import Data

EMBEDDING_WIDTHS = {"carrier": 8, "origin": 4, "dest": 12}
HIDDEN = 128
MEETING = 16
"""Kinds of weather in which flights may differ. 4 of them lose 0.003 of average precision, 48 gain nothing."""

DROPOUT = 0.1
UNKNOWN_RATE = 0.02
"""Share of the categories that training replaces by 0, so that "other" comes to mean an average one."""

BLUR_STD = 0.3
"""Noise on the scaled weather in training. Dozens of flights share an hour, and exact readings would name it; worth 0.003 of
average precision."""

OUTLIER_STD = 5.0
"""Scaled numbers stop here: a storm stronger than any in training counts as the strongest."""

TIMES = ("departure_minute", "arrival_minute")
READINGS = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
AMOUNTS = ("distance", *READINGS)
DAY_MINUTES = 1440.0
HOUR_MINUTES = 60.0
HOURS = 24
WEEKDAYS = 7


class FlightsModule(nn.Module):
    """(category indices int64 [rows, 3], numbers float32 [rows, 14]) -> logits [rows]."""

    typical: Tensor
    mean: Tensor
    std: Tensor
    hours: Tensor
    weekdays: Tensor

    def __init__(self, data: Data) -> None:
        super().__init__()
        _, tensor = data.signature.inputs
        self._positions = {column.name: i for i, column in enumerate(tensor.columns)}
        numbers = torch.from_numpy(data.train.inputs["numbers"])
        typical = numbers.nanmean(dim=0)
        std, mean = torch.std_mean(self._amounts(torch.where(numbers.isnan(), typical, numbers)), dim=0)
        self.register_buffer("typical", typical)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("hours", torch.arange(HOURS) * HOUR_MINUTES)
        self.register_buffer("weekdays", torch.arange(WEEKDAYS) + 1.0)
        self.embeddings = nn.ModuleList(
            _embedding(len(known), EMBEDDING_WIDTHS[name]) for name, known in data.vocabularies.items()
        )
        self.flight = _tower(sum(EMBEDDING_WIDTHS.values()) + len(TIMES) * HOURS + WEEKDAYS + 1)
        self.weather = _tower(2 * len(READINGS) + 2)

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        missing = numbers.isnan()
        filled = torch.where(missing, self.typical, numbers)
        scaled = ((self._amounts(filled) - self.mean) / self.std).clamp(-OUTLIER_STD, OUTLIER_STD)
        distance, readings = scaled[:, :1], self._blurred(scaled[:, 1:])
        weekday = (self._columns(filled, "weekday") == self.weekdays).float()
        flight = self.flight(torch.cat([*self._embedded(categories), self._clock(filled), weekday, distance], dim=1))
        gaps = self._columns(missing, *READINGS).float()
        weather = self.weather(torch.cat([readings, gaps, self._wind(filled, missing)], dim=1))
        both = (flight[:, 1:] * weather[:, 1:]).sum(dim=1) / math.sqrt(MEETING)
        logits: Tensor = flight[:, 0] + weather[:, 0] + both
        return logits

    def _embedded(self, categories: Tensor) -> list[Tensor]:
        categories = self._with_unknowns(categories)
        return [embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings)]

    def _with_unknowns(self, categories: Tensor) -> Tensor:
        if not self.training:
            return categories
        return categories.where(torch.rand(categories.shape, device=categories.device) >= UNKNOWN_RATE, 0)

    def _blurred(self, readings: Tensor) -> Tensor:
        return readings + BLUR_STD * torch.randn_like(readings) if self.training else readings

    def _amounts(self, filled: Tensor) -> Tensor:
        """Float32 [rows, 9]. Rain counts by its logarithm: the first tenth of an inch matters most."""
        amounts = list(torch.split(self._columns(filled, *AMOUNTS), 1, dim=1))
        rain = AMOUNTS.index("precip")
        amounts[rain] = torch.log1p(20 * amounts[rain].clamp(min=0))
        return torch.cat(amounts, dim=1)

    def _clock(self, filled: Tensor) -> Tensor:
        """Each time of day as weights on 24 full hours: 13:15 is 0.75 of 13 and 0.25 of 14, and midnight joins both ends."""
        apart = (self._columns(filled, *TIMES).unsqueeze(2) - self.hours).abs()
        around = torch.minimum(apart, DAY_MINUTES - apart)
        return functional.relu(1 - around / HOUR_MINUTES).flatten(1)

    def _wind(self, filled: Tensor, missing: Tensor) -> Tensor:
        """The wind as a vector in tens of miles per hour, since runways have a direction; zero without one."""
        radians = self._columns(filled, "wind_dir") * (math.pi / 180)
        vector = torch.cat([radians.sin(), radians.cos()], dim=1) * self._columns(filled, "wind_speed") / 10
        return vector.masked_fill(self._columns(missing, "wind_dir"), 0.0)

    def _columns(self, numbers: Tensor, *names: str) -> Tensor:
        return numbers[:, [self._positions[name] for name in names]]


def _embedding(known: int, width: int) -> nn.Embedding:
    """Small at first: a carrier with few flights should stay near the average one."""
    embedding = nn.Embedding(known + 1, width)
    nn.init.normal_(embedding.weight, std=0.1)
    return embedding


def _tower(width: int) -> nn.Sequential:
    """[rows, width] -> [rows, 1 + MEETING]: what counts by itself, and what counts together with the other tower."""
    return nn.Sequential(
        nn.Linear(width, HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, 1 + MEETING),
    )

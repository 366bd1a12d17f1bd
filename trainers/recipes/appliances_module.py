"""The network behind the `appliances` recipe: convolutions over a series of any length, and what is common to all of it.

A NaN says that a series is over, so that series of several lengths fit in one tensor; how much of it follows changes no answer.
Currents differ by six orders of magnitude: the convolutions see each series by its own scale and in logarithms, and the scale
itself goes around them. Training sees a random stretch of each series.
"""

import torch
from torch import Tensor, nn

from trainers.job import Data

WIDTHS = (64, 96, 96)
KERNELS = (9, 7, 5)
DROPOUT = 0.3
TINY = 1e-3
"""What is added before a logarithm: a tenth of the typical value of the quietest appliances."""

STD_MIN = 1e-6
"""A limit and not a sum: the exporter drops the addition of a number as small as this, and a constant series would become NaN."""

OUTLIER_STD = 8.0
STRETCH = 192
"""Samples of a series that training sees at a time: nearly all series have 200 or more."""

SCALE_STD = 0.3
"""Noise on the logarithm of the scale in training: another household's heater is a little stronger."""


class AppliancesModule(nn.Module):
    """samples float32 [rows, length] -> logits [rows, classes]."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        channels = (3, *WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel, padding=kernel // 2, bias=False)
            for before, after, kernel in zip(channels[:-1], channels[1:], KERNELS, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in WIDTHS)
        self.scale = nn.Sequential(nn.Linear(2, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(2 * WIDTHS[-1] + 16, len(data.labels)))

    def forward(self, samples: Tensor) -> Tensor:
        present = (~samples.isnan()).float()
        samples = torch.where(samples.isnan(), torch.zeros_like(samples), samples)
        count = present.sum(dim=1, keepdim=True).clamp(min=1)
        mean = samples.sum(dim=1, keepdim=True) / count
        centred = (samples - mean) * present
        std = ((centred * centred).sum(dim=1, keepdim=True) / count).sqrt().clamp(min=STD_MIN)
        scale = torch.cat([(mean.abs() + TINY).log(), (std + TINY).log()], dim=1)
        shape = (centred / std).clamp(-OUTLIER_STD, OUTLIER_STD)
        loudness = ((samples.abs() + TINY).log() - (mean.abs() + TINY).log()) * present
        channels = torch.stack([shape, loudness, present], dim=1)
        if self.training:
            scale = scale + SCALE_STD * torch.randn(len(scale), 1, device=scale.device)
            channels = _stretch(channels, count)
        pooled = self._pooled(channels)
        logits: Tensor = self.head(torch.cat([pooled, self.scale(scale)], dim=1))
        return logits

    def _pooled(self, channels: Tensor) -> Tensor:
        """The mean and the maximum of the last convolution over the samples that are there."""
        present = channels[:, 2:]
        hidden = channels
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = norm(convolution(hidden)).relu() * present
        mean = hidden.sum(dim=2) / present.sum(dim=2).clamp(min=1)
        return torch.cat([mean, hidden.amax(dim=2)], dim=1)


def _stretch(channels: Tensor, count: Tensor) -> Tensor:
    """`STRETCH` samples of each row, from anywhere in it; all of a shorter row."""
    length = min(STRETCH, channels.shape[2])
    latest = (count.squeeze(1) - length).clamp(min=0)
    start = (torch.rand(len(channels), device=channels.device) * (latest + 1)).long()
    index = start[:, None, None] + torch.arange(length, device=channels.device)
    return channels.gather(2, index.expand(-1, channels.shape[1], -1))

"""The network behind the `mnist5k` recipe: three convolutions over pixels as the data has them, scaled inside.

In training every image is shifted, turned, stretched and blurred a little, anew in every epoch: 3,500 images are few.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.job import Data

HIDDEN = 128
DROPOUT = 0.3
PIXEL_MAX = 255.0
MEAN, STD = 0.1307, 0.3081
"""Of all MNIST pixels in [0, 1]; measured on the training rows they are the same to two digits."""

TURN_DEGREES = 12.0
STRETCH = 0.12
NOISE_STD = 0.1


class Mnist5kModule(nn.Module):
    """pixels float32 [rows, 28, 28] in [0, 255] -> logits [rows, classes]."""

    def __init__(self, data: Data, shift_pixels: int, width: int) -> None:
        super().__init__()
        self._shift_pixels = shift_pixels
        first, second, third = width, 2 * width, 4 * width
        self.layers = nn.Sequential(
            *_convolution(1, first),
            nn.MaxPool2d(2),
            *_convolution(first, second),
            nn.MaxPool2d(2),
            *_convolution(second, third),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(DROPOUT),
            nn.Linear(third * 9, HIDDEN),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, len(data.labels)),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        images = pixels.unsqueeze(1) / PIXEL_MAX
        if self.training:
            images = self._moved(images)
        logits: Tensor = self.layers((images - MEAN) / STD)
        return logits

    def _moved(self, images: Tensor) -> Tensor:
        """Each image by an affine map of its own, with noise on the result."""
        rows, side = len(images), images.shape[-1]
        uniform = 2 * torch.rand(5, rows, device=images.device) - 1
        angle = uniform[0] * math.radians(TURN_DEGREES)
        wide, high = 1 + uniform[1] * STRETCH, 1 + uniform[2] * STRETCH
        right, down = (uniform[i] * 2 * self._shift_pixels / side for i in (3, 4))
        cos, sin = angle.cos(), angle.sin()
        maps = torch.stack([wide * cos, -high * sin, right, wide * sin, high * cos, down], dim=1).view(rows, 2, 3)
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        moved = functional.grid_sample(images, grid, align_corners=False)
        return moved + NOISE_STD * torch.randn_like(moved)


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """The bias is the normalization's; both fold into the convolution when the module is exported."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()

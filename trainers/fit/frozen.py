"""A module of which only the head is trained, so that its encoder runs once for every row and not once for every epoch.

A recipe's module derives from it; `loop` does the rest.
"""

import torch


class FrozenFeatures(torch.nn.Module):
    """A module whose encoder is not trained: `fit` computes its features once, and trains `head` on them.

    `encode` takes what the module takes and returns [rows, ...]; `head` takes that.
    """

    head: torch.nn.Module

    def encode(self, *inputs: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.encode(*inputs))
        return outputs

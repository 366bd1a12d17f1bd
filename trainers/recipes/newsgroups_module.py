"""The network behind the `newsgroups` recipe: a sentence encoder and a bag of words, read by one head.

The encoder is a BERT of `transformers`, read from files that are here already. It knows what words mean, the bag knows which words
this data uses: names of products and people decide much of what a post is about. `FrozenText` trains the head alone, which takes
minutes on a CPU; `TunedText` trains everything, which wants a GPU.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.errors import DataError
from trainers.fit.frozen import FrozenFeatures
from trainers.job import Data

MASKED = -1e4
"""Added to the attention of padding: its share becomes exactly 0, and no smaller number gives quantization a range to cover."""

HIDDEN = 256
DROPOUT = 0.3
TOKEN_DROPOUT = 0.4
"""Share of the words that training takes out of the bag."""

WORD_SCALE = 10.0
"""How much faster the bag learns than the network: a word is in few texts. On a tenth of the newsgroups' training posts, 1 gets
0.897 right and 10 gets 0.912, where logistic regression on TF-IDF gets 0.908."""


class FrozenText(FrozenFeatures):
    """(input_ids, attention_mask) int64 [rows, length] -> logits [rows, classes]; only `head` learns."""

    def __init__(self, encoder: nn.Module, head: "Head") -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.head = head

    def encode(self, *inputs: Tensor) -> Tensor:
        return read(self.encoder, *inputs)


class TunedText(nn.Module):
    """As `FrozenText`, and everything learns."""

    def __init__(self, encoder: nn.Module, head: "Head") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.head(read(self.encoder, input_ids, attention_mask))
        return logits


class Head(nn.Module):
    """What `read` returns, [rows, width + length] -> logits [rows, classes]: a network on the mean plus one weight per word."""

    def __init__(self, width: int, words: int, classes: int) -> None:
        super().__init__()
        self._width = width
        self.mean = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, classes)
        )
        self.words = nn.Embedding(words, classes, padding_idx=0)
        nn.init.zeros_(self.words.weight)

    def forward(self, features: Tensor) -> Tensor:
        ids = features[:, self._width :].to(torch.int64)
        if self.training:
            ids = ids.where(torch.rand(ids.shape, device=ids.device) >= TOKEN_DROPOUT, 0)
        count = (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
        words = WORD_SCALE * self.words(ids).sum(dim=1) / count.to(torch.float32).sqrt()
        logits: Tensor = self.mean(features[:, : self._width]) + words
        return logits


def module(data: Data, folder: Path, *, frozen: bool) -> nn.Module:
    """The encoder whose files are in `folder`, with a new head for the data's labels."""
    encoder, width, words = pretrained(folder)
    made = FrozenText if frozen else TunedText
    return made(encoder, Head(width, words, len(data.labels)))


def pretrained(folder: Path) -> tuple[nn.Module, int, int]:
    """The encoder, the width of a token and how many there are. Raises `DataError` when what builds it is not installed."""
    try:
        from transformers import BertModel
        from transformers.utils import logging as messages
    except ImportError as error:
        raise DataError("transformers, which builds the encoder, is not installed; make examples") from error
    verbosity = messages.get_verbosity()
    messages.set_verbosity(logging.ERROR)  # or it lists the weights of the pooling that nobody asked for
    messages.disable_progress_bar()
    try:
        # Eager attention exports to a plainer graph, 7 to 9 % faster than the fused one's, and its products can be quantized.
        encoder = BertModel.from_pretrained(
            folder, attn_implementation="eager", add_pooling_layer=False, local_files_only=True
        )
    finally:
        messages.set_verbosity(verbosity)
    return encoder, encoder.config.hidden_size, encoder.config.vocab_size


def read(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of the tokens that are no padding, and beside it the tokens themselves: [rows, width + length].

    For a row of padding alone it is zero. Tokens as float32 are exact up to 16 million.
    """
    ids, mask = _shortened(input_ids, attention_mask)
    present = mask.to(torch.float32)
    hidden = encoder(input_ids=ids, attention_mask=(1.0 - present)[:, None, None, :] * MASKED).last_hidden_state
    weights = present.unsqueeze(2)
    mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
    return torch.cat([mean, (input_ids * attention_mask).to(torch.float32)], dim=1)


def _shortened(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Without the columns that are padding in every row. An exported graph takes what it gets."""
    if torch.compiler.is_exporting():
        return input_ids, attention_mask
    longest = max(1, int(attention_mask.sum(dim=1).max()))
    return input_ids[:, :longest], attention_mask[:, :longest]

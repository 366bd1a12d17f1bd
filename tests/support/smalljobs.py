"""Complete jobs on hundreds of synthetic rows that are no yes-or-no tables: images, series of any length, and texts.

They learn in a second and go through every stage. The networks of the series and of the texts are those of the recipes that ship.
"""

import hashlib

import msgspec
import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from gateway.contract.manifest import Column, DataSource, Examples, Signature, Tensor, TextInput
from trainers import objectives
from trainers.arrays import Array
from trainers.job import Baseline, Data, Fit, Split, Target, TrainJob
from trainers.recipes import appliances, texts
from trainers.recipes.appliances_module import AppliancesModule
from trainers.recipes.newsgroups_module import FrozenText, Head

LABELS = ("zero", "one", "two")
ROWS = 700
LENGTH_MAX = 24
WIDTH = 16
TOPICS = (("ball", "goal", "team"), ("engine", "wheel", "road"), ("moon", "orbit", "star"))
FILLERS = ("the", "a", "of", "and", "is", "was")
FIT = Fit(epochs=5, batch_rows=32, learning_rate=0.01, weight_decay=0.0, warmup_steps=5, average_decay=0.9)
TARGET = Target(mix={4: 1.0})


def image_job() -> TrainJob:
    return _job("images", image_data, _image_module)


def series_job() -> TrainJob:
    return _job("series", series_data, AppliancesModule, lengths=(1, 9))


def text_job() -> TrainJob:
    return _job("texts", text_data, text_module, lengths=(2, 7))


def _job(model: str, load, module, lengths: tuple[int, ...] = ()) -> TrainJob:
    return TrainJob(
        model=model,
        description="Which of three is it?",
        objective=objectives.multiclass(len(LABELS)),
        load=load,
        module=module,
        fit=FIT,
        baseline=Baseline("guess", lambda data: np.full((data.test.rows, len(LABELS)), 1 / len(LABELS))),
        target=TARGET,
        lengths=lengths,
    )


def image_data() -> Data:
    """A bright row of 8 x 8 pixels says which class it is."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, ROWS)
    pixels = rng.random((ROWS, 8, 8), np.float32)
    pixels[np.arange(ROWS), 2 * targets + 1] += 2
    rows = tuple({"pixels": image.tolist()} for image in pixels[-8:])
    return _data({"pixels": pixels}, targets, Tensor("pixels", "FP32", ("batch", 8, 8)), examples=rows)


def series_data() -> Data:
    """Sines of three frequencies, 10 to 40 samples long."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, ROWS)
    lengths = rng.integers(10, 41, ROWS)
    series = [
        np.sin(np.arange(length) * (0.5 + target)).astype(np.float32) + rng.normal(2, 0.1, length).astype(np.float32)
        for length, target in zip(lengths, targets, strict=True)
    ]
    samples = appliances.padded(series, 40)
    rows = tuple({"samples": values[:10].tolist()} for values in series[-8:])
    return _data({"samples": samples}, targets, Tensor("samples", "FP32", ("batch", "length")), examples=rows)


def text_data() -> Data:
    """Sentences of words about one of three topics among words about none."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, ROWS)
    sentences = [sentence(rng, int(target)) for target in targets]
    tokenizer = tokenizer_json()
    inputs = texts.tokens(sentences, tokenizer, LENGTH_MAX)
    tensors = [Tensor(name, "INT64", ("batch", "length")) for name in inputs]
    data = _data(inputs, targets, *tensors, examples=tuple({"text": text} for text in sentences[-8:]))
    text = TextInput("text", texts.TOKENIZER, LENGTH_MAX, "input_ids", "attention_mask")
    return msgspec.structs.replace(
        data, files={texts.TOKENIZER: ("tokenizer", tokenizer)}, mask="attention_mask", text=text
    )


def sentence(rng: np.random.Generator, topic: int) -> str:
    words = [*rng.choice(FILLERS, rng.integers(2, 12)), *rng.choice(TOPICS[topic], 2)]
    return " ".join(rng.permutation(words))


def tokenizer_json() -> bytes:
    """Lower-cased words between [CLS] and [SEP]; one that it does not know is [UNK]."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *FILLERS, *(word for topic in TOPICS for word in topic)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer.to_str().encode()


def text_module(data: Data) -> nn.Module:
    words = 4 + len(FILLERS) + sum(map(len, TOPICS))
    return FrozenText(TinyEncoder(words), Head(WIDTH, words, len(data.labels)))


class Hidden(msgspec.Struct):
    last_hidden_state: torch.Tensor


class TinyEncoder(nn.Module):
    """One layer of attention, called as transformers' BERT is."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, WIDTH)
        self.positions = nn.Embedding(LENGTH_MAX, WIDTH)
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Hidden:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        embedded = self.words(input_ids) + self.positions(places)
        query, key, value = self.project(embedded).chunk(3, dim=2)
        scores = query @ key.transpose(1, 2) / WIDTH**0.5 + attention_mask[:, 0]
        return Hidden(self.norm(embedded + scores.softmax(dim=2) @ value))


def _image_module(data: Data) -> nn.Module:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, len(LABELS))
            )

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layers(pixels.unsqueeze(1))
            return logits

    return Images()


def _data(inputs: dict[str, Array], targets: Array, *tensors: Tensor, examples: tuple) -> Data:
    splits = [
        Split({name: values[start:stop] for name, values in inputs.items()}, targets[start:stop].astype(np.int64))
        for start, stop in ((0, 400), (400, 550), (550, ROWS))
    ]
    digest = hashlib.sha256(b"".join(values.tobytes() for values in inputs.values())).hexdigest()
    columns = tuple(Column(label, "number") for label in LABELS)
    return Data(
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        sources=(DataSource("synthetic", digest, ROWS),),
        examples=Examples(examples, tuple(LABELS[target] for target in targets[-8:])),
        signature=Signature(tensors, (Tensor("probabilities", "FP32", ("batch", len(LABELS)), columns),)),
        split="by row",
        labels=LABELS,
    )

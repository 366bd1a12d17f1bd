"""What a recipe returns and every stage of a run works on: data, a module, and how to train, judge and serve it.

A recipe is a function that returns a complete `TrainJob`; nothing about a model is configured anywhere else. Inputs are kept as the
caller of the served model will send them: one array per input tensor of the signature, strings included. `fit` turns strings into
category indices for the torch module, and `export` puts the same step into the ONNX graph.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec
import torch
from numpy.typing import NDArray

from gateway.contract.manifest import DataSource, Examples, Signature

Array = NDArray[Any]  # Any: string, integer and float arrays alike


class Split(msgspec.Struct, frozen=True):
    """One part of the data: `inputs` by tensor name, each [rows, columns], and `targets` [rows]."""

    inputs: Mapping[str, Array]
    targets: Array

    @property
    def rows(self) -> int:
        return len(self.targets)


class Data(msgspec.Struct, frozen=True):
    """Splits by time, disjoint and in order; `examples` are rows of the test split as a client would send them."""

    train: Split
    validation: Split
    test: Split
    sources: tuple[DataSource, ...]
    examples: Examples
    signature: Signature
    vocabularies: Mapping[str, tuple[str, ...]]
    """For each string column: its known categories. Index 0 in the module means "other", category i is i + 1."""


class Report(Protocol):
    """Where a long step tells how far it is; the command line shows a bar, a test ignores it."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None: ...


class Fit(msgspec.Struct, frozen=True):
    """How to train. `seed` fixes initialization, data order and dropout."""

    epochs: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    seed: int = 0
    patience: int = 2


class Limits(msgspec.Struct, frozen=True):
    """What a quantized candidate may differ from fp32 by, on the held-out split."""

    metric_drop_max: float = 0.005
    probability_drift_p99_max: float = 0.05
    agreement_min: float = 0.97
    batch_difference_max: float = 1e-5


class TrainJob(msgspec.Struct, frozen=True):
    """Everything one training run needs. `module` gets (category_indices int64 [rows, k], numbers float32 [rows, m]) and
    returns logits [rows]; `output` names the served probability column.
    """

    model: str
    description: str
    task: Literal["classify", "regress"]
    load: Callable[[], Data]
    module: Callable[[Data], torch.nn.Module]
    output: str
    fit: Fit
    limits: Limits = Limits()
    parameters: Mapping[str, str | float | bool] = {}

    def fitted_with(self, *, seed: int | None, epochs: int | None) -> "TrainJob":
        """The same job with another seed or number of epochs; None keeps the recipe's."""
        seed = self.fit.seed if seed is None else seed
        epochs = self.fit.epochs if epochs is None else epochs
        return msgspec.structs.replace(self, fit=msgspec.structs.replace(self.fit, seed=seed, epochs=epochs))


class Candidate(msgspec.Struct, frozen=True):
    """One ONNX graph that computes the job's signature: the exported one (`fp32`), or what a quantization recipe made of it.

    `optimized_by` as in the manifest's variant.
    """

    id: str
    recipe: str
    graph: bytes
    optimized_by: str = ""

"""What a recipe returns and every stage of a run works on: data, a module, and how to train, judge and serve it.

A recipe is a function that returns a complete `TrainJob`; nothing about a model is configured anywhere else. Inputs are kept as the
caller of the served model will send them: one array per input tensor of the signature, strings included. `fit` turns strings into
category indices for the torch module, and `export` puts the same step into the ONNX graph. Importing this does not import torch:
what was trained elsewhere is judged without it.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from gateway.contract.manifest import DataSource, Examples, Role, Signature, TextInput
from trainers.arrays import Array
from trainers.objectives import Objective
from trainers.rules import Rules

if TYPE_CHECKING:
    import torch


class Split(msgspec.Struct, frozen=True):
    """One part of the data: `inputs` by tensor name, each [rows, ...], and `targets` [rows]."""

    inputs: Mapping[str, Array]
    targets: Array

    @property
    def rows(self) -> int:
        return len(self.targets)

    def picked(self, rows: Array) -> "Split":
        """These rows only, by index."""
        return Split({name: values[rows] for name, values in self.inputs.items()}, self.targets[rows])

    def spread(self, rows_max: int) -> Array:
        """The indices of at most so many rows, from all over the split; 0 is all of it."""
        return np.linspace(0, self.rows - 1, min(self.rows, rows_max or self.rows)).astype(np.int64)

    def thinned(self, rows_max: int) -> "Split":
        """The rows of `spread`."""
        return self.picked(self.spread(rows_max)) if 0 < rows_max < self.rows else self


class Data(msgspec.Struct, frozen=True):
    """Three disjoint splits; `examples` are rows of the test split as a client would send them.

    `files` go into the artifact as they are, by name. `mask` names the input whose zeros say which positions of a row are padding;
    without one every position counts. `text` says how the gateway makes the inputs of a string. `slices` are groups of test rows
    that each have to be served well, as booleans [rows].
    """

    train: Split
    validation: Split
    test: Split
    sources: tuple[DataSource, ...]
    examples: Examples
    signature: Signature
    vocabularies: Mapping[str, tuple[str, ...]] = {}
    """For each string column: its known categories. Index 0 in the module means "other", category i is i + 1."""
    split: str = "by time: trained on the earliest rows, stopped on the next, judged once on the latest"
    labels: tuple[str, ...] = ()
    files: Mapping[str, tuple[Role, bytes]] = {}
    mask: str = ""
    text: TextInput | None = None
    slices: Mapping[str, Array] = {}


class Report(Protocol):
    """Where a long step tells how far it is; the command line shows a bar, a test ignores it."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None: ...


def adamw(module: "torch.nn.Module", fit: "Fit") -> "torch.optim.Optimizer":
    import torch

    return torch.optim.AdamW(module.parameters(), fit.learning_rate, weight_decay=fit.weight_decay)


WARMUP_PART = 10
"""At most one step in so many: a short job must not spend itself on warming up."""


def warm_cosine(step: int, steps: int, fit: "Fit") -> float:
    """Rises over `fit.warmup_steps`, then falls as half a cosine to zero."""
    warmup = min(fit.warmup_steps, max(1, steps // WARMUP_PART))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


class Fit(msgspec.Struct, frozen=True):
    """How to train. `seed` fixes initialization, data order and dropout.

    Validation judges a moving average of the weights, which spans about 1 / (1 - `average_decay`) steps. `optimizer` makes one for
    the parameters of the module it gets; `schedule` is the factor on its learning rate at a step of so many.
    """

    epochs: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    seed: int = 0
    patience: int = 2
    warmup_steps: int = 200
    average_decay: float = 0.995
    optimizer: Callable[["torch.nn.Module", "Fit"], "torch.optim.Optimizer"] = adamw
    schedule: Callable[[int, int, "Fit"], float] = warm_cosine


class Limits(msgspec.Struct, frozen=True):
    """What a quantized candidate may differ from fp32 by, on at most `rows_max` rows of the held-out split (0: all)."""

    metric_drop_max: float = 0.005
    probability_drift_p99_max: float = 0.05
    value_drift_p99_max: float = 0.02
    agreement_min: float = 0.97
    accuracy_loss_max: float = 0.005
    """Of the upper 95 % confidence bound of the paired loss."""
    calibration_rise_max: float = 0.01
    neighbours_min: float = 0.93
    cosine_p1_min: float = 0.99
    batch_difference_max: float = 1e-5
    lone_reference: bool = False
    """Whether an fp32 graph that misses `batch_difference_max` is served without batching requests; otherwise it is refused."""

    rows_max: int = 0


BATCHES = (1, 8, 32, 128)
"""What a model is expected to be asked for when its recipe says nothing."""


class Target(msgspec.Struct, frozen=True):
    """Where the model will be served: the price book's platform, and how often batches of which size are expected (`mix`)."""

    platform: str = "fargate-x86"
    mix: Mapping[int, float] = msgspec.field(default_factory=lambda: dict.fromkeys(BATCHES, 1.0))

    def __post_init__(self) -> None:
        if not self.mix or min(self.mix) < 1 or min(self.mix.values()) <= 0:
            raise ValueError("a target's mix needs batch sizes of 1 or more, each with a weight above 0")

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(sorted(self.mix))

    @property
    def batch_max(self) -> int:
        return max(self.mix)


class Terms(msgspec.Struct, frozen=True):
    """By what candidates are judged."""

    objective: Objective
    limits: Limits = Limits()
    target: Target = Target()


class Baseline(msgspec.Struct, frozen=True):
    """The simplest model worth beating. `predict` learns from the train split and answers the test split as served."""

    name: str
    predict: Callable[[Data], Array]


class TrainJob(msgspec.Struct, frozen=True):
    """Everything one training run needs.

    `module` gets one tensor per input of the signature, in its order: category indices int64 for strings, the declared datatype
    for others; it returns what the objective's loss takes. `lengths` are sizes of the signature's symbolic axes at which the
    exported graph must equal the module. `calibration` gives rows to fix quantization scales with; by default validation's.
    """

    model: str
    description: str
    objective: Objective
    load: Callable[[], Data]
    module: Callable[[Data], "torch.nn.Module"]
    fit: Fit
    baseline: Baseline
    limits: Limits = Limits()
    target: Target = Target()
    promotion: Rules = Rules()
    lengths: tuple[int, ...] = ()
    calibration: Callable[[Data], Mapping[str, Array]] | None = None
    parameters: Mapping[str, str | float | bool] = {}

    @property
    def terms(self) -> Terms:
        return Terms(self.objective, self.limits, self.target)

    def served_by(self, mix: Mapping[int, float]) -> "TrainJob":
        """The same job, judged for another mix of batch sizes."""
        return msgspec.structs.replace(self, target=msgspec.structs.replace(self.target, mix=mix))

    def fitted_with(self, *, seed: int | None, epochs: int | None) -> "TrainJob":
        """The same job with another seed or number of epochs; None keeps the recipe's."""
        seed = self.fit.seed if seed is None else seed
        epochs = self.fit.epochs if epochs is None else epochs
        return msgspec.structs.replace(self, fit=msgspec.structs.replace(self.fit, seed=seed, epochs=epochs))


class Candidate(msgspec.Struct, frozen=True):
    """One ONNX graph that computes the job's signature: the exported one (`fp32`), or what a quantization recipe made of it.

    `optimized_by`, `recipe_args` and `requires` as in the manifest's variant, `saturated` and `notes` as in its trade-off.
    """

    id: str
    recipe: str
    graph: bytes
    optimized_by: str = ""
    recipe_args: Mapping[str, str | float | bool] = {}
    requires: tuple[str, ...] = ()
    saturated: float = 0.0
    notes: str = ""


def trimmed(inputs: Mapping[str, Array], signature: Signature, mask: str) -> dict[str, Array]:
    """These rows without positions that are padding in all of them; at least one position stays. No mask: as they are."""
    if not mask:
        return dict(inputs)
    longest = max(1, int((inputs[mask] != 0).sum(axis=1).max(initial=1)))
    return {name: cut(values, shapes[1:], longest) for name, values, shapes in _shaped(inputs, signature)}


def cut(values: Array, shape: tuple[int | str, ...], length: int) -> Array:
    """Rows cut to `length` along every symbolic axis of `shape`, which is the signature's without the rows."""
    return values[(slice(None), *(slice(length) if isinstance(axis, str) else slice(None) for axis in shape))]


def _shaped(inputs: Mapping[str, Array], signature: Signature) -> list[tuple[str, Array, tuple[int | str, ...]]]:
    return [(tensor.name, inputs[tensor.name], tensor.shape) for tensor in signature.inputs]

"""Train a job's module: mini-batches, and a moving average of the weights, which is what validation judges and a run keeps.

On CPU the result is a function of job, data, seed and thread count, to the last bit. CUDA trains in mixed precision and promises
no such thing. All data is in memory; the order of rows is a function of (seed, epoch) alone. Called by `trainers.run`.
"""

import copy
import math
import time

import msgspec
import torch
from torch import nn

from trainers.arrays import Array
from trainers.errors import DataError
from trainers.fit import device as places
from trainers.fit.rows import Rows, placed, rows
from trainers.job import Data, Fit, FrozenFeatures, Report, TrainJob
from trainers.objectives import Objective

REPORT_SECONDS = 0.5
WARMUP_PART = 10
"""At most one step in so many: a short job must not spend itself on warming up."""


class Epoch(msgspec.Struct, frozen=True):
    """`train_loss`: mean loss of the weights in training. `validation`: metrics of their average after the epoch."""

    train_loss: float
    validation: dict[str, float]
    examples_per_second: float


class Fitted(msgspec.Struct, frozen=True):
    """The module with the weights of `history[best]`, in eval mode on the CPU. `device` is `cpu` or the name of the GPU."""

    module: nn.Module
    history: tuple[Epoch, ...]
    best: int
    device: str
    seconds: float


def fit(job: TrainJob, data: Data, report: Report, device: str | None = None) -> Fitted:
    """Train for `job.fit.epochs`, or until validation has not improved for `job.fit.patience` epochs.

    `device` None takes CUDA when there is one. Raises `SpecError` for a device that is not there, `DataError` for data that nothing
    can be learned from and for a loss that is not finite.
    """
    for name, split in (("train", data.train), ("validation", data.validation)):
        job.objective.check(name, split.targets)
    where = places.choose(device)
    started = time.monotonic()
    with places.seeded(job.fit.seed, where):
        module = job.module(data).to(where)
        train, validation = (rows(data, split, where) for split in (data.train, data.validation))
        if isinstance(module, FrozenFeatures):
            train, validation = (_features(module, part, job.fit, report) for part in (train, validation))
        trainer = _Trainer(module.head if isinstance(module, FrozenFeatures) else module, job, len(train), report)
        history, best = trainer.run(train, validation)
    if isinstance(module, FrozenFeatures):
        module.head = trainer.best
    else:
        module = trainer.best
    return Fitted(module.cpu().eval(), history, best, places.title(where), time.monotonic() - started)


def _features(module: FrozenFeatures, part: Rows, fit: Fit, report: Report) -> Rows:
    """What the encoder makes of these rows, once and for all epochs."""
    module.eval()
    features, done = [], 0
    with torch.inference_mode():
        for inputs, targets in part.in_order(fit.batch_rows):
            features.append(module.encode(*inputs))
            done += len(targets)
            report("encode", done, len(part))
    return placed((torch.cat(features).clone(),), part.targets, part.device)


class _Trainer:
    """The module in training, the average of its weights, the best average so far, and what moves them."""

    def __init__(self, module: nn.Module, job: TrainJob, rows: int, report: Report) -> None:
        self._fit: Fit = job.fit
        self._objective: Objective = job.objective
        self._module = module
        self._average = copy.deepcopy(module).eval()
        self.best = self._average
        self._optimizer = job.fit.optimizer(module, job.fit)
        steps = job.fit.epochs * math.ceil(rows / job.fit.batch_rows)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _rate(step, steps, job.fit.warmup_steps)
        )
        self._precision = places.Precision(next(module.parameters()).device)
        self._report = report
        self._steps = 0

    def run(self, train: Rows, validation: Rows) -> tuple[tuple[Epoch, ...], int]:
        """The epochs and the index of the best one."""
        history: list[Epoch] = []
        best = 0
        while len(history) < self._fit.epochs and len(history) - best <= self._fit.patience:
            history.append(self._epoch(len(history), train, validation))
            if len(history) == 1 or self._is_better(history[-1], history[best]):
                best = len(history) - 1
                self.best = copy.deepcopy(self._average)
        self._report("fit", 1, 1, f"best of {len(history)} epochs: {best + 1}")
        return tuple(history), best

    def _is_better(self, one: Epoch, other: Epoch) -> bool:
        watched = self._objective.watched
        return watched.loss(other.validation[watched.name], one.validation[watched.name]) < 0

    def _epoch(self, number: int, train: Rows, validation: Rows) -> Epoch:
        """One pass over all rows in the order of this epoch, then the average's metrics."""
        self._module.train()
        indices = torch.split(order(self._fit.seed, number, len(train)), self._fit.batch_rows)
        losses = torch.zeros((), device=train.device)
        began = told = time.monotonic()
        for done, (inputs, targets) in enumerate(train.batches(indices), start=1):
            losses += self._step(inputs, targets) * len(targets)
            if time.monotonic() - told > REPORT_SECONDS:
                told = time.monotonic()
                rate = done * self._fit.batch_rows / (told - began)
                self._progress(number * len(indices) + done, len(indices), f"{rate:,.0f} rows/s")
        loss = float(losses) / len(train)
        if not math.isfinite(loss):
            raise DataError(
                f"the loss is {loss} in epoch {number + 1}; check the data for infinities or lower the learning rate"
            )
        elapsed = time.monotonic() - began
        judged = self._objective.measure(validation.targets.cpu().numpy(), self._answers(validation))
        watched = self._objective.watched.name
        note = f"loss {loss:.4f}, {watched} {judged[watched]:.4f}"
        self._progress((number + 1) * len(indices), len(indices), note)
        return Epoch(loss, judged, len(train) / elapsed)

    def _step(self, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
        """One batch: the weights move, the average follows. Returns the loss, still on the device."""
        with self._precision.forward():
            loss = self._objective.loss(self._module(*inputs), targets)
        self._precision.backward(loss, self._optimizer)
        self._schedule.step()
        self._steps += 1
        decay = min(
            self._fit.average_decay, self._steps / (self._steps + 10)
        )  # it must not remember the initial weights
        with torch.no_grad():
            for kept, current in zip(self._average.parameters(), self._module.parameters(), strict=True):
                kept.lerp_(current, 1 - decay)
            for fixed, moved in zip(self._average.buffers(), self._module.buffers(), strict=True):
                fixed.copy_(moved)
        return loss.detach()

    def _answers(self, split: Rows) -> Array:
        with torch.inference_mode():
            parts = [
                self._objective.answers(self._average(*inputs).float())
                for inputs, _ in split.in_order(2 * self._fit.batch_rows)
            ]
        answers: Array = torch.cat(parts).cpu().numpy()
        return answers

    def _progress(self, done: int, per_epoch: int, note: str) -> None:
        self._report("fit", done, self._fit.epochs * per_epoch, note)


def _rate(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then a half cosine to zero; the factor on the learning rate at this step."""
    warmup = min(warmup_steps, max(1, steps // WARMUP_PART))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def order(seed: int, epoch: int, rows: int) -> torch.Tensor:
    """The rows in this epoch's order: a pure function of its arguments, so that a later epoch needs no earlier one."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(rows, generator=generator)

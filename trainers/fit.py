"""Train a job's module: mini-batches, AdamW, and a moving average of the weights, which is what validation judges and a run keeps.

On CPU the result is a function of job, data, seed and thread count, to the last bit. CUDA trains in mixed precision and promises
no such thing. All data is in memory; the order of rows is a function of (seed, epoch) alone. Called by `trainers.run`.
"""

import contextlib
import copy
import math
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from trainers import metrics
from trainers.errors import DataError, SpecError
from trainers.job import Array, Data, Fit, Report, Split, TrainJob

WATCHED = "roc_auc"
"""The validation metric that stops a run, higher is better. It does not depend on how frequent the outcome is, which in a split by
time differs: Brier and average precision would reward the epoch that happens to suit the rate of the validation period."""

WARMUP_STEPS = 200
AVERAGE_DECAY = 0.995
"""The average spans about 200 steps; at the start fewer, so that it does not remember the initial weights."""

REPORT_SECONDS = 0.5
EVALUATION_ROWS = 16384


class Epoch(msgspec.Struct, frozen=True):
    """`train_loss`: mean cross entropy of the weights in training. `validation`: metrics of their average after the epoch."""

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


class Rows(msgspec.Struct, frozen=True):
    """A split as the module takes it: categories int64 [rows, k], numbers float32 [rows, m], targets float32 [rows]."""

    categories: torch.Tensor
    numbers: torch.Tensor
    targets: torch.Tensor


def fit(job: TrainJob, data: Data, report: Report, device: str | None = None) -> Fitted:
    """Train for `job.fit.epochs`, or until validation has not improved for `job.fit.patience` epochs.

    `device` None takes CUDA when there is one. Raises `SpecError` for a device that is not there, `DataError` for data that no
    classifier can learn from and for a loss that is not finite.
    """
    _refuse_untrainable(data)
    where = _device(device)
    started = time.monotonic()
    with _seeded(job.fit.seed, where):
        trainer = _Trainer(job.module(data).to(where), job.fit, data.train.rows, report)
        history, best = trainer.run(rows(data, data.train, where), rows(data, data.validation, where))
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    return Fitted(trainer.best.cpu().eval(), history, best, name, time.monotonic() - started)


def rows(data: Data, split: Split, device: torch.device) -> Rows:
    """Strings become indices as in the exported graph: 0 for what is in no vocabulary, i + 1 for category i."""
    categories, numbers = [], []
    for tensor in data.signature.inputs:
        values = split.inputs[tensor.name]
        if tensor.datatype == "BYTES":
            columns = zip(tensor.columns, values.T, strict=True)
            categories += [_indices(data.vocabularies[column.name], texts) for column, texts in columns]
        else:
            numbers.append(values)
    return Rows(
        torch.from_numpy(np.stack(categories, axis=1)).to(device),
        torch.from_numpy(np.concatenate(numbers, axis=1, dtype=np.float32)).to(device),
        torch.from_numpy(split.targets.astype(np.float32)).to(device),
    )


class _Trainer:
    """The module in training, the average of its weights, the best average so far, and what moves them."""

    def __init__(self, module: nn.Module, fit: Fit, rows: int, report: Report) -> None:
        self._module = module
        self._average = copy.deepcopy(module).eval()
        self.best = self._average
        self._fit = fit
        self._optimizer = torch.optim.AdamW(module.parameters(), fit.learning_rate, weight_decay=fit.weight_decay)
        steps = fit.epochs * math.ceil(rows / fit.batch_rows)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: _rate(step, steps))
        self._precision = _Precision(next(module.parameters()).device)
        self._report = report
        self._steps = 0

    def run(self, train: Rows, validation: Rows) -> tuple[tuple[Epoch, ...], int]:
        """The epochs and the index of the best one."""
        history: list[Epoch] = []
        best = 0
        while len(history) < self._fit.epochs and len(history) - best <= self._fit.patience:
            history.append(self._epoch(len(history), train, validation))
            if len(history) == 1 or history[-1].validation[WATCHED] > history[best].validation[WATCHED]:
                best = len(history) - 1
                self.best = copy.deepcopy(self._average)
        self._report("fit", 1, 1, f"best of {len(history)} epochs: {best + 1}")
        return tuple(history), best

    def _epoch(self, number: int, train: Rows, validation: Rows) -> Epoch:
        """One pass over all rows in the order of this epoch, then the average's metrics."""
        self._module.train()
        order = _order(self._fit.seed, number, len(train.targets)).to(train.targets.device)
        batches = torch.split(order, self._fit.batch_rows)
        losses = torch.zeros((), device=order.device)
        began = told = time.monotonic()
        for done, batch in enumerate(batches, start=1):
            losses += self._step(train.categories[batch], train.numbers[batch], train.targets[batch]) * len(batch)
            if time.monotonic() - told > REPORT_SECONDS:
                told = time.monotonic()
                rate = done * self._fit.batch_rows / (told - began)
                self._progress(number * len(batches) + done, len(batches), f"{rate:,.0f} rows/s")
        loss = float(losses) / len(order)
        if not math.isfinite(loss):
            raise DataError(
                f"the loss is {loss} in epoch {number + 1}; check the data for infinities or lower the learning rate"
            )
        elapsed = time.monotonic() - began
        judged = metrics.binary_metrics(validation.targets.cpu().numpy(), self._probabilities(validation))
        self._progress((number + 1) * len(batches), len(batches), f"loss {loss:.4f}, roc_auc {judged['roc_auc']:.4f}")
        return Epoch(loss, judged, len(order) / elapsed)

    def _step(self, categories: torch.Tensor, numbers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One batch: the weights move, the average follows. Returns the loss, still on the device."""
        with self._precision.forward():
            loss = binary_cross_entropy_with_logits(self._module(categories, numbers).float(), targets)
        self._precision.backward(loss, self._optimizer)
        self._schedule.step()
        self._steps += 1
        decay = min(AVERAGE_DECAY, self._steps / (self._steps + 10))
        with torch.no_grad():
            for kept, current in zip(self._average.parameters(), self._module.parameters(), strict=True):
                kept.lerp_(current, 1 - decay)
            for fixed, moved in zip(self._average.buffers(), self._module.buffers(), strict=True):
                fixed.copy_(moved)
        return loss.detach()

    def _probabilities(self, split: Rows) -> Array:
        with torch.inference_mode():
            parts = [
                self._average(categories, numbers).sigmoid()
                for categories, numbers in zip(
                    torch.split(split.categories, EVALUATION_ROWS),
                    torch.split(split.numbers, EVALUATION_ROWS),
                    strict=True,
                )
            ]
        return torch.cat(parts).cpu().numpy()

    def _progress(self, done: int, per_epoch: int, note: str) -> None:
        self._report("fit", done, self._fit.epochs * per_epoch, note)


class _Precision:
    """Mixed precision on CUDA: bfloat16 where the GPU has it, else float16 with a loss scaler. Plain float32 on CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        is_cuda = device.type == "cuda"
        self._dtype = torch.bfloat16 if is_cuda and torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler(enabled=is_cuda and self._dtype is torch.float16)

    def forward(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, self._dtype, enabled=self._device.type == "cuda")

    def backward(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._scaler.step(optimizer)
        self._scaler.update()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine to zero; the factor on the learning rate at this step."""
    warmup = min(WARMUP_STEPS, max(1, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def _order(seed: int, epoch: int, rows: int) -> torch.Tensor:
    """The rows in this epoch's order: a pure function of its arguments, so that a later epoch needs no earlier one."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(rows, generator=generator)


def _indices(known: tuple[str, ...], texts: Array) -> Array:
    index = {text: i + 1 for i, text in enumerate(known)}
    return np.fromiter((index.get(text, 0) for text in texts), np.int64, len(texts))


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Initialization and dropout from this seed, deterministic kernels on CPU; the process's own state is put back."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(device.type == "cpu")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)


def _device(name: str | None) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if has_cuda else "cpu")
    if name not in {"cpu", "cuda"} or (name == "cuda" and not has_cuda):
        raise SpecError(f"device '{name}' is not here; there is: {'cpu, cuda' if has_cuda else 'cpu'}")
    return torch.device(name)


def _refuse_untrainable(data: Data) -> None:
    for name, split in (("train", data.train), ("validation", data.validation)):
        positives = int(np.count_nonzero(split.targets))
        if positives in (0, split.rows):
            raise DataError(f"the {name} split needs both outcomes; {positives} of {split.rows} rows are positive")

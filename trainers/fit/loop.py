"""Train a job's module: mini-batches, and a moving average of the weights, which is what validation judges and a run keeps.

On CPU the result is a function of job, data, seed and thread count, to the last bit, however often it was interrupted and resumed.
CUDA trains in mixed precision and promises no such thing. All data is in memory; the order of rows is a function of (seed, epoch)
alone. Called by `trainers.run`.
"""

import contextlib
import copy
import resource
import time
from collections.abc import Iterator, Mapping

import msgspec
import torch
from torch import nn

from trainers.arrays import Array
from trainers.checkpoint import state
from trainers.checkpoint.state import Snapshot
from trainers.errors import DataError, OutOfMemory, SpecError
from trainers.fit import device as places
from trainers.fit.compiling import Compiling
from trainers.fit.frozen import FrozenFeatures
from trainers.fit.keeping import Keeping, Unkept, Verdict
from trainers.fit.order import batch_count, batches, order
from trainers.fit.rows import Rows, placed, rows
from trainers.fit.world import World
from trainers.job import Data, Fit, Report, TrainJob
from trainers.objectives import Objective

REPORT_SECONDS = 0.5
STEPS_PER_WORD = 16

NO_MEMORY = "can't allocate memory"
"""What torch's allocator says on a CPU, where it has no error of its own for it."""

STARVED = 0.1
"""Share of an epoch spent waiting for batches from which on the progress says so."""


class Epoch(msgspec.Struct, frozen=True):
    """`train_loss`: mean loss of the weights in training. `validation`: metrics of their average after the epoch.

    Of the part of the epoch that this attempt trained: `examples_per_second`, and the share of it that was spent waiting for data.
    """

    train_loss: float
    validation: dict[str, float]
    examples_per_second: float
    waiting: float = 0.0


class Fitted(msgspec.Struct, frozen=True):
    """The module with the weights of `history[best]`, in eval mode on the CPU. `device` is `cpu` or the name of the GPU.

    `is_cut_short`: the budget was spent before the last epoch. `resumed_at`: the steps from which attempts went on.
    """

    module: nn.Module
    history: tuple[Epoch, ...]
    best: int
    device: str
    seconds: float
    is_cut_short: bool = False
    resumed_at: tuple[int, ...] = ()


def fit(
    job: TrainJob,
    data: Data,
    report: Report,
    device: str | None = None,
    *,
    keeping: Keeping | None = None,
    world: World | None = None,
) -> Fitted:
    """Train for `job.fit.epochs`, or until validation has not improved for `job.fit.patience` epochs.

    `device` None takes CUDA when there is one. Raises `SpecError` for a device that is not there, `DataError` for data that nothing
    can be learned from and for a loss that is not finite, and whatever `keeping` raises.
    """
    for name, split in (("train", data.train), ("validation", data.validation)):
        job.objective.check(name, split.targets)
    world = world or World()
    where = places.choose(device)
    started = time.monotonic()
    with places.seeded(job.fit.seed, where):
        module = job.module(data).to(where)
        train, validation = (rows(data, split, where) for split in (data.train, data.validation))
        if isinstance(module, FrozenFeatures):
            train, validation = (_features(module, part, job.fit, report) for part in (train, validation))
        trained = module.head if isinstance(module, FrozenFeatures) else module
        trainer = _Trainer(trained, job, len(train), report, keeping or Unkept(), world)
        with _memory_explained(job.fit, where):
            trainer.run(train, validation)
    if isinstance(module, FrozenFeatures):
        module.head = trainer.best
    else:
        module = trainer.best
    return Fitted(
        module=module.cpu().eval(),
        history=tuple(trainer.history),
        best=trainer.best_epoch,
        device=places.title(where),
        seconds=time.monotonic() - started,
        is_cut_short=trainer.is_cut_short,
        resumed_at=trainer.resumed_at,
    )


@contextlib.contextmanager
def _memory_explained(fit: Fit, where: torch.device) -> Iterator[None]:
    """What torch raises when memory is short says little about what to do; on a CPU it is a bare RuntimeError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and NO_MEMORY not in str(error):
            raise
        if where.type == "cuda":
            peak_bytes = torch.cuda.max_memory_allocated(where)
        else:
            peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        raise OutOfMemory(
            f"out of memory with batches of {fit.batch_rows} rows, after {peak_bytes / 2**30:.1f} GiB; lower the recipe's "
            "batch_rows, or take a machine with more memory"
        ) from error


def _features(module: FrozenFeatures, part: Rows, fit: Fit, report: Report) -> Rows:
    """What the encoder makes of these rows, once and for all epochs."""
    module.eval()
    features, done = [], 0
    with torch.inference_mode():
        for inputs, targets in part.in_order(fit.batch_rows):
            features.append(
                module.encode(*inputs).cpu()
            )  # there is room for all of them; `placed` knows whether a GPU has it
            done += len(targets)
            report("encode", done, len(part))
    return placed((torch.cat(features).clone(),), part.targets.cpu(), part.device)


class _Sum:
    """The loss over the rows of the epoch so far, on the device; a part of the state, for an epoch may be resumed in its middle."""

    def __init__(self, device: torch.device) -> None:
        self.value = torch.zeros((), device=device)

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], /) -> None:
        self.value.copy_(state_dict["value"])


class _Trainer:
    """The module in training, the average of its weights, the best average so far, and what moves them."""

    def __init__(
        self, module: nn.Module, job: TrainJob, rows: int, report: Report, keeping: Keeping, world: World
    ) -> None:
        first = next(module.parameters(), None)
        if first is None:
            raise SpecError(
                "the module has no parameters, so there is nothing to train; steelyard import publishes a fixed graph"
            )
        device = first.device
        self._fit: Fit = job.fit
        self._objective: Objective = job.objective
        self._module = module
        self._average = copy.deepcopy(module).eval()
        self.best = copy.deepcopy(self._average)
        self._optimizer = job.fit.optimizer(module, job.fit)
        self._per_epoch = batch_count(rows, job.fit.batch_rows)
        self._total = job.fit.epochs * self._per_epoch
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: job.fit.schedule(step, self._total, job.fit)
        )
        self._precision = places.Precision(device)
        self._losses = _Sum(device)
        self._report = report
        self._keeping = keeping
        self._world = world
        self._steps = 0
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self.resumed_at: tuple[int, ...] = ()
        self.is_cut_short = False

    def run(self, train: Rows, validation: Rows) -> None:
        """All epochs that are left; then `history`, `best_epoch` and `best` are what came of them."""
        self._resume(self._world.tell(self._keeping.resumed()))
        if not self._world.is_first:  # all were seeded alike, and only the first one's generators are saved
            torch.manual_seed(hash((self._fit.seed, self._world.rank, self._steps)))
        callable_ = self._world.together(self._module, train.device)
        self._compiling = Compiling(
            callable_,
            self._total - self._steps,
            is_allowed=train.device.type == "cuda",
            wait=torch.cuda.synchronize if train.device.type == "cuda" else lambda: None,
        )
        self._keeping.begins(self._steps, self._total)
        while not self._is_over:
            self.history.append(self._epoch(len(self.history), train, validation))
            if len(self.history) == 1 or self._is_better(self.history[-1], self.history[self.best_epoch]):
                self.best_epoch = len(self.history) - 1
                self.best.load_state_dict(self._average.state_dict())
        self._keeping.ends()
        if not self._world.is_first:
            return
        self._report("fit", 1, 1, f"best of {len(self.history)} epochs: {self.best_epoch + 1}")

    @property
    def _is_over(self) -> bool:
        epochs = len(self.history)
        return self.is_cut_short or epochs >= self._fit.epochs or epochs - self.best_epoch > self._fit.patience

    def _is_better(self, one: Epoch, other: Epoch) -> bool:
        watched = self._objective.watched
        return watched.loss(other.validation[watched.name], one.validation[watched.name]) < 0

    def _epoch(self, number: int, train: Rows, validation: Rows) -> Epoch:
        """What is left of one pass over all rows in the order of this epoch, then the average's metrics."""
        done = self._steps - number * self._per_epoch
        if not done:
            self._losses.value.zero_()
        self._module.train()
        indices = batches(order(self._fit.seed, number, len(train)), self._fit.batch_rows)[done:]
        shares = [self._world.share(index) for index in indices]
        began = told = time.monotonic()
        waited, examples = 0.0, 0
        ahead = train.batches([index for index, _ in shares])
        for index, (_, weight) in zip(indices, shares, strict=True):
            asked = time.monotonic()
            inputs, targets = next(ahead)
            waited += time.monotonic() - asked
            self._losses.value += self._step(inputs, targets, weight) * len(index)
            examples += len(index)
            if time.monotonic() - told > REPORT_SECONDS:
                told = time.monotonic()
                self._require_finite()
                self._tell(examples / (told - began), waited / (told - began))
            if self._shall_stop(self._keeping.after_step(self._steps, len(index), self._capture)):
                self.is_cut_short = self._steps < self._total
                break
        elapsed = max(time.monotonic() - began, 1e-9)
        is_whole = self._steps == (number + 1) * self._per_epoch  # the last batch has a size of its own
        seen = len(train) if is_whole else examples + done * self._fit.batch_rows
        loss = float(self._world.mean(self._require_finite())) / seen
        judged = self._world.tell(self._judged(validation))
        watched = self._objective.watched.name
        if self._world.is_first:
            self._progress(f"loss {loss:.4f}, {watched} {judged[watched]:.4f}")
            self._keeping.measured(
                self._steps, {"train_loss": loss, "examples_per_second": examples / elapsed, **judged}
            )
        return Epoch(loss, judged, examples / elapsed, waited / elapsed)

    def _shall_stop(self, verdict: Verdict) -> bool:
        """All processes must stop at the same step; asking each other costs too much to do it at every one."""
        if self._world.size > 1 and self._steps % STEPS_PER_WORD:
            return False
        return self._world.tell(verdict) == "stop"

    def _step(self, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor, weight: float) -> torch.Tensor:
        """One batch: the weights move, the average follows. Returns the loss, still on the device."""
        with self._precision.forward():
            loss = self._objective.loss(self._compiling(*inputs), targets) * weight
        self._precision.backward(loss, self._optimizer)
        self._schedule.step()
        self._compiling.after_step()
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

    def _judged(self, validation: Rows) -> dict[str, float]:
        """The average's metrics. The first process alone computes them."""
        if not self._world.is_first:
            return {}
        with torch.inference_mode():
            parts = [
                self._objective.answers(self._average(*inputs).float())
                for inputs, _ in validation.in_order(2 * self._fit.batch_rows)
            ]
        answers: Array = torch.cat(parts).cpu().numpy()
        return self._objective.measure(validation.targets.cpu().numpy(), answers)

    def _parts(self) -> dict[str, state.Stateful]:
        return {
            "module": self._module,
            "average": self._average,
            "best": self.best,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "scaler": self._precision.scaler,
            "losses": self._losses,
        }

    def _capture(self) -> Snapshot:
        self._require_finite()
        facts = {"best_epoch": self.best_epoch, "resumed_at": list(self.resumed_at)}
        facts["history"] = [msgspec.to_builtins(epoch) for epoch in self.history]
        return state.capture(self._steps, self._parts(), facts)

    def _resume(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        state.restore(snapshot, self._parts())
        self._steps = snapshot.step
        self.history = [msgspec.convert(epoch, Epoch) for epoch in snapshot.facts["history"]]
        self.best_epoch = snapshot.facts["best_epoch"]
        self.resumed_at = (*snapshot.facts["resumed_at"], snapshot.step)

    def _require_finite(self) -> torch.Tensor:
        """The sum of the losses; a state with one that is not finite is not worth keeping."""
        if not torch.isfinite(self._losses.value):
            raise DataError(
                f"the loss is {float(self._losses.value)} in epoch {len(self.history) + 1}; check the data for infinities or "
                "lower the learning rate"
            )
        return self._losses.value

    def _tell(self, rate: float, waiting: float) -> None:
        """Loss and rate of the epoch so far, in the progress bar and the run's metrics."""
        done = self._steps - len(self.history) * self._per_epoch
        loss = float(self._losses.value) / max(1, done * self._fit.batch_rows)
        starved = f", {waiting:.0%} waiting for data" if waiting > STARVED else ""
        if self._world.is_first:
            self._progress(f"loss {loss:.4f}, {rate:,.0f} rows/s{starved}")
            self._keeping.measured(self._steps, {"train_loss": loss, "examples_per_second": rate})

    def _progress(self, note: str) -> None:
        self._report("fit", self._steps, self._total, note)

"""A training that stops and goes on: the same weights from any step to the last bit; cut short by its budget; in two processes."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tinyjob import tiny_data, tiny_job
from tests.unit.test_fit import changed, silent, weight_hash
from trainers.checkpoint.state import Snapshot, copied
from trainers.errors import DataError
from trainers.fit.compiling import MEASURED_STEPS, WARM_UP_STEPS, Compiling
from trainers.fit.keeping import Capture, Unkept, Verdict
from trainers.fit.loop import fit
from trainers.fit.order import batch_count, batches
from trainers.fit.world import World

PER_EPOCH = 10  # 2400 rows in batches of 256
EPOCHS = 3


class Stopped(Exception): ...


class Stopping(Unkept):
    """Raises at a step, with the state after it."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.snapshot: Snapshot | None = None

    def after_step(self, step: int, examples: int, capture: Capture) -> Verdict:
        if step == self._at:
            self.snapshot = copied(capture())
            raise Stopped
        return "go on"


class Resuming(Unkept):
    def __init__(self, snapshot: Snapshot | None) -> None:
        self._snapshot = snapshot

    def resumed(self) -> Snapshot | None:
        return self._snapshot


class Noisy(torch.nn.Module):
    """The tiny module with dropout and batch normalization, so that all kinds of state matter."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        inner.layers.insert(1, torch.nn.BatchNorm1d(32))
        inner.layers.insert(2, torch.nn.Dropout(0.2))

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(categories, numbers)
        return logits


def job():
    made = tiny_job()
    return msgspec.structs.replace(changed(made, epochs=EPOCHS), module=lambda data: Noisy(made.module(data)))


@pytest.fixture(scope="module")
def whole() -> str:
    return weight_hash(fit(job(), tiny_data(), silent, "cpu").module)


@pytest.mark.parametrize("step", [1, 7, PER_EPOCH, PER_EPOCH + 1, 2 * PER_EPOCH + 9, EPOCHS * PER_EPOCH])
def test_from_any_step_the_weights_are_those_of_an_uninterrupted_training(whole: str, step: int):
    stopping = Stopping(step)
    with pytest.raises(Stopped):
        fit(job(), tiny_data(), silent, "cpu", keeping=stopping)
    torch.manual_seed(99)  # another process has other generators
    resumed = fit(job(), tiny_data(), silent, "cpu", keeping=Resuming(stopping.snapshot))
    assert weight_hash(resumed.module) == whole
    assert len(resumed.history) == EPOCHS


@pytest.mark.parametrize("step", [9, 10])
def test_a_single_row_that_is_left_over_joins_the_batch_before(step: int):
    """Nine batches of 256 and one row: batch normalization could not take it alone."""
    whole_data = tiny_data()
    data = msgspec.structs.replace(whole_data, train=whole_data.train.picked(np.arange(2305)))
    uninterrupted = fit(job(), data, silent, "cpu")
    stopping = Stopping(step)
    with pytest.raises(Stopped):
        fit(job(), data, silent, "cpu", keeping=stopping)
    resumed = fit(job(), data, silent, "cpu", keeping=Resuming(stopping.snapshot))
    assert weight_hash(resumed.module) == weight_hash(uninterrupted.module)
    assert [epoch.train_loss for epoch in resumed.history] == [epoch.train_loss for epoch in uninterrupted.history]


@given(rows=st.integers(1, 200), batch_rows=st.integers(1, 50), size=st.integers(1, 8))
def test_every_row_is_in_one_batch_and_no_process_gets_a_single_one(rows: int, batch_rows: int, size: int):
    parts = batches(torch.arange(rows), batch_rows)
    assert torch.cat(parts).tolist() == list(range(rows))
    assert batch_count(rows, batch_rows) == len(parts)
    for part in parts:
        shares = [World(rank, size).share(part)[0] for rank in range(size)]
        assert min(map(len, shares)) >= min(2, rows, batch_rows)


def test_a_spent_budget_ends_training_with_the_best_so_far():
    class Spending(Unkept):
        def after_step(self, step: int, examples: int, capture: Capture) -> Verdict:
            return "stop" if step >= PER_EPOCH + 3 else "go on"

    fitted = fit(job(), tiny_data(), silent, "cpu", keeping=Spending())
    assert fitted.is_cut_short
    assert len(fitted.history) == 2
    assert fitted.history[fitted.best].validation["roc_auc"] > 0.5


def test_a_state_whose_loss_is_not_finite_is_not_kept():
    data = tiny_data()
    data.train.inputs["numbers"][:, 0] = float("inf")
    stopping = Stopping(2)
    with pytest.raises(DataError, match="loss is nan in epoch 1"):
        fit(job(), data, silent, "cpu", keeping=stopping)
    assert stopping.snapshot is None


def test_two_processes_learn_what_one_does(tmp_path: Path):
    """The batches are the same, each process has half of each: only the order of sums differs."""
    code = """
import sys
from tests.support.tinyjob import tiny_data, tiny_job
from trainers.fit.loop import fit
from trainers.fit.world import joined
import torch
with joined(torch.device("cpu")) as world:
    world.call("fit" if world.is_first else "")
    fitted = fit(tiny_job(), tiny_data(), lambda *_: None, "cpu", world=world)
    if world.is_first:
        torch.save({"loss": fitted.history[-1].train_loss, **fitted.history[-1].validation}, sys.argv[1])
"""
    script, out = tmp_path / "two.py", tmp_path / "out.pt"
    script.write_text(code)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(out),
    ]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    two, one = torch.load(out, weights_only=True), fit(tiny_job(), tiny_data(), silent, "cpu").history[-1]
    assert two["loss"] == pytest.approx(one.train_loss, rel=1e-3)
    assert two["roc_auc"] == pytest.approx(one.validation["roc_auc"], abs=2e-3)


class Clock:
    """Steps of the module take `plain` seconds, of the compiled one `compiled`."""

    def __init__(self, plain: float, compiled: float) -> None:
        self.now = 0.0
        self._costs = {"plain": plain, "compiled": compiled}

    def __call__(self) -> float:
        return self.now

    def step(self, compiling: Compiling) -> None:
        self.now += self._costs["compiled" if compiling.forward == "compiled" else "plain"]
        compiling.after_step()


@pytest.mark.parametrize(
    ("plain", "compiled", "steps", "expected"),
    [(0.1, 0.05, 10_000, "compiled"), (0.1, 0.11, 10_000, "plain"), (0.1, 0.05, 1_000, "plain")],
)
def test_a_module_is_compiled_where_it_was_measured_to_pay(plain: float, compiled: float, steps: int, expected: str):
    clock, module = Clock(plain, compiled), torch.nn.Linear(1, 1)
    compiling = Compiling(module, steps, is_allowed=True, build=lambda _: "compiled", clock=clock)
    for _ in range(3 * (WARM_UP_STEPS + MEASURED_STEPS)):
        clock.step(compiling)
    assert compiling.forward == ("compiled" if expected == "compiled" else module)


def test_nothing_is_compiled_where_it_is_not_allowed():
    clock, module = Clock(1.0, 0.1), torch.nn.Linear(1, 1)
    compiling = Compiling(module, 100_000, is_allowed=False, build=lambda _: "compiled", clock=clock)
    for _ in range(100):
        clock.step(compiling)
    assert compiling.forward is module


def test_a_module_that_cannot_be_compiled_here_trains_as_it_is(caplog: pytest.LogCaptureFixture):
    def build(module: torch.nn.Module):
        def forward(*inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("Failed to find C compiler.\nPlease specify one")

        return forward

    clock, module = Clock(0.1, 0.1), torch.nn.Linear(1, 1)
    compiling = Compiling(module, 10_000, is_allowed=True, build=build, clock=clock)
    for _ in range(2 * (WARM_UP_STEPS + MEASURED_STEPS)):
        assert torch.equal(compiling(torch.ones(1, 1)), module(torch.ones(1, 1)))
        clock.step(compiling)
    assert compiling.forward is module
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile fails here, so training goes on without it: Failed to find C compiler."
    ]

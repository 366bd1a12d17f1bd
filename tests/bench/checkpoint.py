"""`python -m tests.bench.checkpoint`: what checkpoints cost training, beside the same training without them, in the same run.

Rounds of equally many steps alternate, medians count. Saves come much more often than in earnest, so that their cost stands out
of the noise; it is then divided by the interval that the saver chooses for saves of that length. Target: less than 2 % of
training time. CPU time is the steadier figure: neighbours on the machine do not change it.
"""

import asyncio
import copy
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import torch
from torch import nn

from gateway.contract.checkpoint import STATE, Origin
from gateway.objectstore.local import LocalStore
from trainers.checkpoint import state
from trainers.checkpoint.interval import Interval, interval_s
from trainers.checkpoint.saver import Saver, Spent
from trainers.checkpoint.store import Checkpoints, open_run

WIDTH, LAYERS, BATCH = 1024, 4, 128  # with AdamW's two moments and an average of the weights: 67 MB of state
ROUND_S = 10.0
ROUNDS = 5
SAVES_EVERY = Interval(min_s=2.0, max_s=2.0)
TARGET = 0.02


class Round(msgspec.Struct, frozen=True):
    wall_s: float
    cpu_s: float
    spent: Spent


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(Path(folder)))


async def _compare(folder: Path) -> None:
    training = Training()
    steps = await asyncio.to_thread(training.steps_in, ROUND_S)
    origin = Origin("0" * 64, {}, state.fingerprint(torch.device("cpu")))
    checkpoints = await open_run(LocalStore(folder), "bench", origin)
    without: list[Round] = []
    saving: list[Round] = []
    for _ in range(ROUNDS):
        without.append(await asyncio.to_thread(training.run, steps, None))
        saving.append(await asyncio.to_thread(training.run, steps, _saver(checkpoints)))
    size_mb = await asyncio.to_thread(_size_mb, folder)
    print(f"{steps} steps a round, {ROUNDS} rounds each, {size_mb:.0f} MB of state, a folder as the store, one thread")
    _report(without, saving)


def _size_mb(folder: Path) -> float:
    return max(path.stat().st_size for path in folder.rglob(STATE)) / 1e6


def _report(without: list[Round], saving: list[Round]) -> None:
    saves = sum(one.spent.saves for one in saving)
    stall_ms = sum(one.spent.stall_s for one in saving) / saves * 1000
    took_s = sum(one.spent.save_s for one in saving) / saves
    every_s = interval_s(took_s)
    print(
        f"{saves} saves: training stood still {stall_ms:.1f} ms for each, which was committed {took_s:.2f} s after its offer"
    )
    print(f"for such saves the interval is {every_s:.0f} s")
    print(f"{'':24}{'plain s':>9}{'saving s':>10}{'ratio':>7}{'a save s':>10}   of the interval")
    for what, field in (("wall time", "wall_s"), ("CPU time, all threads", "cpu_s")):
        plain_s = statistics.median(getattr(one, field) for one in without)
        saving_s = statistics.median(getattr(one, field) for one in saving)
        cost_s = (saving_s - plain_s) / (saves / len(saving))
        share = f"{cost_s / every_s:.2%} (target < {TARGET:.0%})"
        print(f"{what:<24}{plain_s:9.2f}{saving_s:10.2f}{saving_s / plain_s:7.2f}{cost_s:10.3f}   {share}")
    spread = [one.wall_s for one in without]
    print(f"noise: rounds without saves took {min(spread):.2f} to {max(spread):.2f} s")


def _saver(checkpoints: Checkpoints) -> Saver:
    return Saver(checkpoints, asyncio.get_running_loop(), print, now=time.monotonic(), interval=SAVES_EVERY)


class Training:
    """A wide network on noise: as much state for its computing as a small transformer has."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        self._model = nn.Sequential(*layers)
        self._average = copy.deepcopy(self._model)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), 1e-4)
        self._batch = torch.randn(BATCH, WIDTH)
        self._steps = 0

    def steps_in(self, seconds: float) -> int:
        """After one second of warming up."""
        self._for(1.0)
        return self._for(seconds)

    def run(self, steps: int, saver: Saver | None) -> Round:
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        for _ in range(steps):
            self._step()
            if saver and saver.due(now := time.monotonic()):
                saver.offer(self._snapshot(), now)
        if saver:
            saver.flush(time.monotonic())
        return Round(time.monotonic() - began_s, time.process_time() - began_cpu_s, saver.spent if saver else Spent())

    def _for(self, seconds: float) -> int:
        began_s, before = time.monotonic(), self._steps
        while time.monotonic() - began_s < seconds:
            self._step()
        return self._steps - before

    def _step(self) -> None:
        self._optimizer.zero_grad()
        nn.functional.mse_loss(self._model(self._batch), self._batch).backward()
        self._optimizer.step()
        with torch.no_grad():
            for kept, current in zip(self._average.parameters(), self._model.parameters(), strict=True):
                kept.lerp_(current, 0.01)
        self._steps += 1

    def _snapshot(self) -> state.Snapshot:
        parts = {"model": self._model, "average": self._average, "optimizer": self._optimizer}
        return state.capture(self._steps, parts, {"loss": 0.1})


if __name__ == "__main__":
    main()

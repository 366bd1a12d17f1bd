"""`steelyard train` in real processes that are stopped and killed at random steps: in the end the weights are the very same.

Every attempt is recorded with how it ended, and a run asked for again goes on at the first stage that is missing.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.contract import codec, layout
from gateway.contract.runs import AttemptEnd, StageRecord
from gateway.objectstore.opening import open_store
from tests.support.doomedjob import STEPS

RECIPE = "tests.support.doomedjob:doomed_job"
ROOT = Path(__file__).parents[2]


def train(folder: Path, run_id: str, *options: str, doom: str = "") -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DOOM": doom, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "trainers",
        RECIPE,
        "--store",
        str(folder / "store"),
        "--run-id",
        run_id,
        "--quiet",
    ]
    command += ["--checkpoint-every", "1s", "--promote", "none", *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240
    )


def weights(folder: Path, run_id: str) -> str:
    """The digest of the weights that the fit stage left in the store."""

    async def read() -> str:
        store = open_store(str(folder / "store"))
        (info,) = [info async for info in store.list(f"{layout.stages(run_id)}fit/")]
        record = codec.decode((await store.get(info.key)).body, StageRecord)
        return next(file.sha256 for file in record.files if file.name == "weights.safetensors")

    return asyncio.run(read())


def ends(folder: Path, run_id: str) -> list[AttemptEnd]:
    async def read() -> list[AttemptEnd]:
        store = open_store(str(folder / "store"))
        keys = [info.key async for info in store.list(layout.attempts(run_id)) if info.key.endswith("-end.json")]
        return [codec.decode((await store.get(key)).body, AttemptEnd) for key in keys]

    return asyncio.run(read())


def interrupted(folder: Path, whole: str, signals: Sequence[str], seed: int) -> list[AttemptEnd]:
    """Interrupt a run by these signals, then let it finish. Compares its weights, returns how its attempts ended."""
    draw = random.Random(seed)
    run_id = f"interrupted-{seed}"
    for name in signals:
        done = train(folder, run_id, doom=f"{name}:{draw.randint(1, max(2, STEPS // (len(signals) + 1)))}")
        expected = {143} if name == "TERM" else {-9}
        assert done.returncode in expected, (name, done.returncode, done.stderr[-2000:])
    finished = train(folder, run_id)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert weights(folder, run_id) == whole
    return ends(folder, run_id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interrupted")


@pytest.fixture(scope="module")
def whole(folder: Path) -> str:
    done = train(folder, "whole")
    assert done.returncode == 0, done.stderr[-2000:]
    return weights(folder, "whole")


def test_stopped_and_killed_a_run_ends_with_the_same_weights(folder: Path, whole: str):
    attempts = interrupted(folder, whole, ("TERM", "KILL"), seed=4)
    assert [attempt.outcome for attempt in attempts] == ["preempted", "lost", "done"]
    assert attempts[-1].kept_step == STEPS


def test_a_stopped_run_says_how_it_goes_on(folder: Path):
    stopped = train(folder, "told", doom="TERM:10")
    assert stopped.returncode == 143, stopped.stderr[-2000:]
    assert "go on with: steelyard runs resume told --store " in stopped.stderr


def test_a_finished_run_asked_for_again_trains_nothing(folder: Path, whole: str):
    again = train(folder, "whole", doom="KILL:1")
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout.split()[:2] == ["doomed", "1"]


@pytest.mark.e2e
def test_two_processes_stop_as_one_and_go_on(folder: Path):
    stopped = train(folder, "two", "--processes", "2", doom="TERM:25")
    assert stopped.returncode == 143, stopped.stderr[-2000:]
    assert "go on with: steelyard runs resume " in stopped.stderr
    finished = train(folder, "two", "--processes", "2")
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert [attempt.outcome for attempt in ends(folder, "two")] == ["preempted", "done"]
    assert ends(folder, "two")[0].steps_done == 25


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "seed"), [("TERM", 1), ("KILL", 2)])
def test_at_twenty_random_steps(folder: Path, whole: str, name: str, seed: int):
    attempts = interrupted(folder, whole, [name] * 20, seed)
    outcome = "preempted" if name == "TERM" else "lost"
    assert [attempt.outcome for attempt in attempts] == [outcome] * 20 + ["done"]

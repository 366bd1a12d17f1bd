"""Training that is killed, and goes on in a new process, ends with the weights of training that was not: to the last bit.

Real processes, real signals, a real store. `tests.support.interruptible` is what is killed.
"""

import asyncio
import random
import signal
from pathlib import Path

import pytest
import torch

from gateway.contract import codec, layout
from gateway.contract.checkpoint import Latest
from gateway.objectstore.local import LocalStore
from tests.support import interruptible
from tests.support.interruptible import RUN
from tests.support.smalltraining import STEPS, SmallTraining
from trainers.checkpoint.store import open_run

CHOICE = random.SystemRandom()


@pytest.fixture(scope="module")
def whole() -> str:
    """The hash of the weights when nothing happens, computed as the processes do: on one thread."""
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    found = SmallTraining().run_to(STEPS).weight_hash()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(was_deterministic)
    return found


def pointer(store: Path) -> Latest:
    return codec.decode((store / layout.latest_checkpoint(RUN)).read_bytes(), Latest)


def kill_at(store: Path, steps: list[int], number: signal.Signals) -> str:
    """One attempt per step, which gets the signal there; then one that is left alone. The hash of the weights."""
    for step in steps:
        with interruptible.attempt(store) as attempt:
            attempt.train_to(step)
            attempt.process.kill() if number == signal.SIGKILL else attempt.process.terminate()
            if number == signal.SIGTERM:
                assert attempt.hear("asked") == ("SIGTERM",)
                attempt.go_on()
                assert attempt.end() == 143
                named = pointer(store).checkpoint
                assert named is not None
                assert named.step == max(step, attempt.resumed_at + 1), "the very step that the signal came in is saved"
            else:
                assert attempt.end() == -signal.SIGKILL
    with interruptible.attempt(store) as attempt:
        found = attempt.finish()
        assert attempt.end() == 0
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_training_killed_three_times_ends_with_the_same_weights(
    tmp_path: Path, whole: str, number: signal.Signals
) -> None:
    steps = sorted(CHOICE.sample(range(1, STEPS), 3))
    assert kill_at(tmp_path, steps, number) == whole, f"killed at {steps}"


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("_", range(20))
def test_training_killed_at_any_step_ends_with_the_same_weights(
    tmp_path: Path, whole: str, number: signal.Signals, _: int
) -> None:
    step = CHOICE.randrange(1, STEPS)
    assert kill_at(tmp_path, [step], number) == whole, f"killed at {step}"


@pytest.mark.parametrize("newer_has_saved", [False, True])
def test_an_attempt_that_was_given_up_ends_without_saving(tmp_path: Path, whole: str, newer_has_saved: bool) -> None:
    with interruptible.attempt(tmp_path) as zombie:
        zombie.train_to(30)  # and then it hangs, as a host that lost its network does
        with interruptible.attempt(tmp_path) as newer:
            if newer_has_saved:
                newer.train_to(40)
            zombie.go_on()
            while (message := zombie.hear_any())[0] == "step":
                zombie.go_on()
            assert message[0] == "fenced"
            assert "attempt 2 has taken over from this attempt 1" in message[1]
            assert zombie.end() == 1
            assert pointer(tmp_path).attempt == 2

            if newer_has_saved:
                newer.go_on()
                newer.hear("step")
            assert newer.finish() == whole


def prepared(store: Path, *steps: int) -> list[Path]:
    """Checkpoints of the run at these steps; the files with their tensors."""

    async def save() -> None:
        checkpoints = await open_run(LocalStore(store), RUN, interruptible.origin())
        training = SmallTraining()
        for step in steps:
            await checkpoints.save(training.run_to(step).snapshot())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    asyncio.run(save())
    torch.set_num_threads(threads)
    return sorted(store.glob("runs/*/checkpoints/*/state.safetensors"))


def spoil(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path: Path, whole: str) -> None:
    spoil(prepared(tmp_path, 20, 40, 60)[-1])

    with interruptible.attempt(tmp_path) as attempt:
        assert attempt.resumed_at == 40
        assert "step 60 of attempt 1: 'state.safetensors' is not what its manifest says" in attempt.skipped[0]
        assert attempt.finish() == whole


def test_training_does_not_start_again_when_all_its_checkpoints_are_damaged(tmp_path: Path) -> None:
    for path in prepared(tmp_path, 20, 40):
        spoil(path)

    with interruptible.starting(tmp_path) as attempt:
        (message,) = attempt.hear("refused")
        assert "all 2 checkpoints are damaged" in message
        assert attempt.end() == 65

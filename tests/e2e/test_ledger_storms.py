"""Thousands of simulated lives, and a kill at every step of more of them: what the normal suite does with hundreds."""

import logging

import pytest

from tests.support import ledgersim, spillsim

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)


def test_two_thousand_seeds() -> None:
    for seed in range(1000, 3000):
        ledgersim.run(seed)


@pytest.mark.parametrize("disk", spillsim.KINDS[1:])
def test_four_hundred_seeds_with_a_local_disk(disk: spillsim.DiskKind) -> None:
    for seed in range(1000, 1400):
        ledgersim.run(seed, disk=disk)


def test_a_thousand_torn_seeds() -> None:
    assert sum(bool(ledgersim.run(seed, may_tear=True).disk.torn) for seed in range(1000)) > 200


@pytest.mark.parametrize("seed", [2, 6, 12, 18, 22])
def test_a_kill_at_every_step_of_longer_lives(seed: int) -> None:
    for step in range(1, ledgersim.run(seed, kill_at=-1, lives=2).steps):
        ledgersim.run(seed, kill_at=step, lives=2)

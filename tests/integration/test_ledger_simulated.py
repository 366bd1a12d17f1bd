"""The ledger in simulated lives: whatever a seed does to it, it balances, records nothing twice, and its audit names what is wrong.

A failure's note says how to replay it. Thousands of seeds: tests/e2e/test_ledger_storms.py.
"""

import logging

import pytest

from tests.support import ledgersim, simworld, spillsim


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of outages log thousands of lines, which are tested elsewhere."""
    caplog.set_level(logging.CRITICAL + 1)


@pytest.mark.parametrize("block", range(7))
def test_seeds(block: int) -> None:
    faults = set[str]()
    for seed in range(block * 30, block * 30 + 30):
        faults |= set(ledgersim.run(seed).faults)
    assert faults == set(simworld.FAULTS)


@pytest.mark.parametrize("disk", spillsim.KINDS[1:])
def test_seeds_with_a_local_disk(disk: spillsim.DiskKind) -> None:
    """Long outages, also at exits and kills: what a whole disk took is in the ledger after the next start."""
    runs = [ledgersim.run(seed, disk=disk) for seed in range(25)]
    assert (sum(done.local.writes for done in runs) > 100) == (disk != "absent")
    assert (sum(done.local.refused for done in runs) > 100) == (disk in {"absent", "full"})
    assert (sum(done.recovered for done in runs) > 20) == (disk != "absent")
    assert (sum(done.set_aside for done in runs) > 10) == (disk == "torn")


@pytest.mark.parametrize("seed", [77, 70])
def test_a_kill_at_every_step_with_a_local_disk(seed: int) -> None:
    steps = ledgersim.run(seed, kill_at=-1, lives=2, disk="present").steps
    killed = [ledgersim.run(seed, kill_at=step, lives=2, disk="present") for step in range(1, steps - 1)]
    assert sum(done.lives[0].is_killed for done in killed) > 30
    assert any(done.recovered for done in killed)


@pytest.mark.parametrize("seed", [0, 9])
def test_a_kill_at_every_step(seed: int) -> None:
    """Every await of the writer, the outbox and the store is a step of the loop."""
    steps = ledgersim.run(seed, kill_at=-1, lives=2).steps
    killed = [ledgersim.run(seed, kill_at=step, lives=2) for step in range(1, steps - 1)]
    assert len(killed) > 30
    assert all(done.lives[0].is_killed for done in killed)
    assert any(done.verdict.unattributed_picousd for done in killed)


def test_torn_objects_stop_the_writer_and_are_named() -> None:
    torn = [done for seed in range(60) if (done := ledgersim.run(seed, may_tear=True)).disk.torn]
    assert len(torn) > 10
    assert any(life.conflicts for done in torn for life in done.lives)


def test_a_seed_replays() -> None:
    first, second = ledgersim.run(17, disk="torn"), ledgersim.run(17, disk="torn")
    assert first.disk.objects == second.disk.objects
    assert (first.verdict, first.steps, first.faults) == (second.verdict, second.steps, second.faults)


def test_a_failing_seed_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgersim, "_bill", lambda *_: -1)
    with pytest.raises(AssertionError) as failure:
        ledgersim.run(3)
    assert "replay: ledgersim.run(3, kill_at=None" in failure.value.__notes__[0]

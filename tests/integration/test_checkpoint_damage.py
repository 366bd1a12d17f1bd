"""Checkpoints in a folder that are spoiled, or that another spec, other data or another host has written: noticed and told."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.contract import layout
from gateway.contract.checkpoint import Origin
from gateway.errors import ManifestInvalid
from gateway.objectstore.local import LocalStore
from tests.support.checkpoints import LENIENT, ORIGIN, RUN, at, flip, pointer, resumed_step, saved, snapshot
from trainers.checkpoint.listing import Place, listed
from trainers.checkpoint.store import open_run
from trainers.errors import DataError, Fenced, HostDiffers, SpecError


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", ["state.safetensors", "facts.json", "manifest.json"])
async def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    folder: LocalStore, name: str, spoil: Callable[[Path], None]
) -> None:
    await saved(folder, 10, 20, 30)
    spoil(at(folder, 30, name))

    attempt = await open_run(folder, RUN, ORIGIN)
    resumed = await attempt.latest()

    assert resumed is not None
    assert (resumed.snapshot.step, resumed.steps_lost, len(resumed.skipped)) == (20, 10, 1)
    assert resumed.skipped[0].startswith("step 30 of attempt 1: ")
    await attempt.save(snapshot(25))  # what the new attempt saves is the newest, though its step is lower
    assert await resumed_step(folder) == 25


async def test_when_every_checkpoint_is_damaged_nothing_starts_again_silently(folder: LocalStore) -> None:
    await saved(folder, 10, 20)
    for step in (10, 20):
        flip(at(folder, step, "state.safetensors"))

    with pytest.raises(
        DataError, match=r"all 2 checkpoints are damaged; delete runs/run-1/checkpoints/ .* step 20 .* step 10"
    ):
        await (await open_run(folder, RUN, ORIGIN)).latest()


async def test_a_named_checkpoint_that_is_gone_is_damage_too(folder: LocalStore) -> None:
    await saved(folder, 10)
    for name in ("state.safetensors", "facts.json", "manifest.json"):
        at(folder, 10, name).unlink()

    with pytest.raises(DataError, match="all 1 checkpoints are damaged"):
        await (await open_run(folder, RUN, ORIGIN)).latest()


@pytest.mark.parametrize("spoil", [empty, truncate, Path.unlink])
async def test_without_the_pointer_the_newest_checkpoint_is_found_and_the_fence_holds(
    folder: LocalStore, spoil: Callable[[Path], None]
) -> None:
    old = await saved(folder, 10, 20)
    spoil(folder.path(layout.latest_checkpoint(RUN)))

    new = await open_run(folder, RUN, ORIGIN)

    resumed = await new.latest()
    assert resumed is not None
    assert (new.attempt, resumed.snapshot.step) == (2, 20)
    with pytest.raises(Fenced):
        await old.save(snapshot(30))


async def test_a_pointer_lost_during_training_is_written_again(folder: LocalStore) -> None:
    attempt = await saved(folder, 10)
    folder.path(layout.latest_checkpoint(RUN)).unlink()

    await attempt.save(snapshot(20))

    assert await resumed_step(folder) == 20


async def test_a_pointer_of_a_newer_release_is_left_alone(folder: LocalStore) -> None:
    await saved(folder, 10)
    path = folder.path(layout.latest_checkpoint(RUN))
    path.write_bytes(path.read_bytes().replace(b'"schema_version":1', b'"schema_version":2'))
    before = path.read_bytes()

    with pytest.raises(ManifestInvalid, match="upgrade"):
        await open_run(folder, RUN, ORIGIN)

    assert path.read_bytes() == before


async def test_an_upload_that_was_never_committed_is_no_checkpoint(folder: LocalStore) -> None:
    await saved(folder, 10)
    await folder.put_if_absent(layout.checkpoint_file(RUN, 99, 1, "state.safetensors"), b"half of it")

    assert await resumed_step(folder) == 10
    await saved(folder, 20)
    assert Place(1, 99) not in await listed(folder, RUN), "and it is cleared away"


async def refused(store: LocalStore, origin: Origin, error: type[Exception]) -> str:
    """The message; the attempt that is at work must not be fenced by what could never go on."""
    before = await pointer(store)
    with pytest.raises(error) as caught:
        await open_run(store, RUN, origin)
    assert await pointer(store) == before
    return str(caught.value)


async def test_a_checkpoint_of_another_spec_is_refused_with_both_digests(folder: LocalStore) -> None:
    await saved(folder, 10)

    message = await refused(folder, msgspec.structs.replace(ORIGIN, spec_sha256="f" * 64), SpecError)

    assert "a" * 64 in message
    assert "f" * 64 in message
    assert "another run id" in message


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"train": "f" * 64}, f"train was {'b' * 64}, is {'f' * 64}"),
        ({}, f"train was {'b' * 64}, is absent"),
        ({"train": "b" * 64, "weather": "c" * 64}, f"weather was absent, is {'c' * 64}"),
    ],
)
async def test_a_checkpoint_of_other_data_is_refused_with_both_digests(
    folder: LocalStore, data: dict[str, str], told: str
) -> None:
    await saved(folder, 10)

    assert told in await refused(folder, msgspec.structs.replace(ORIGIN, data_sha256=data), SpecError)


OTHER_HOST = msgspec.structs.replace(ORIGIN, fingerprint=ORIGIN.fingerprint | {"threads": "1", "device": "NVIDIA L4"})


async def test_another_host_is_refused_with_the_differences_and_the_option(folder: LocalStore) -> None:
    await saved(folder, 10)

    message = await refused(folder, OTHER_HOST, HostDiffers)

    assert "device was cpu, is NVIDIA L4, threads was 2, is 1;" in message
    assert "`strict_resume`" in message


async def test_another_host_is_accepted_when_asked_and_recorded_for_good(folder: LocalStore) -> None:
    await saved(folder, 10)
    elsewhere = await open_run(folder, RUN, OTHER_HOST, options=LENIENT)
    resumed = await elsewhere.latest()
    assert resumed is not None
    assert (resumed.snapshot.step, resumed.bit_exact) == (10, "best_effort")
    await elsewhere.save(snapshot(20))

    again = await (await open_run(folder, RUN, OTHER_HOST)).latest()

    assert again is not None
    assert (again.snapshot.step, again.bit_exact) == (20, "best_effort"), "equal hosts do not make it exact again"

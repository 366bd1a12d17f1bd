"""A stage is done once for the same inputs, again for others, and again when what is stored is not what it was."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.contract import codec, layout
from gateway.contract.runs import StageRecord
from gateway.objectstore.local import LocalStore
from tests.support.faults import Crash, CrashingStore
from tests.support.trainingruns import RUN, opened
from trainers.runs import reading, stages
from trainers.runs.progress import Tracker
from trainers.runs.stages import Stages

KEY = stages.digest("export", 1, {"model.pt": "ab"})
OTHER = stages.digest("export", 2, {"model.pt": "ab"})


class Work:
    """Counts how often it is done; `change` makes its next results differ."""

    def __init__(self, text: str = "graph") -> None:
        self.times = 0
        self.text = text

    def __call__(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.times += 1
        (folder / "model.onnx").write_bytes(self.text.encode() * 1000)
        (folder / "notes.txt").write_text("small")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    (tmp_path / "store").mkdir()
    return LocalStore(tmp_path / "store")


async def attempt(store: LocalStore, folder: Path, tracker: Tracker | None = None) -> Stages:
    """The stages of a new attempt with a folder of its own, as on a new machine."""
    return Stages(store, await opened(store), folder, tracker or Tracker())


async def test_a_later_attempt_gets_the_files_and_does_no_work(store: LocalStore, tmp_path: Path) -> None:
    work, tracker = Work(), Tracker()
    first = await (await attempt(store, tmp_path / "a", tracker)).run("export", KEY, work)
    second = await (await attempt(store, tmp_path / "b")).run("export", KEY, work)
    assert (work.times, first.was_stored, second.was_stored) == (1, False, True)
    assert second.path("model.onnx").read_bytes() == first.path("model.onnx").read_bytes() == b"graph" * 1000
    assert second.digests == first.digests
    assert second.record.attempt == 1
    assert tracker.now().progress.stages == ("export",)
    assert [record.stage for record in await reading.stages(store, RUN.run_id)] == ["export"]


async def test_other_inputs_are_another_stage(store: LocalStore, tmp_path: Path) -> None:
    work = Work()
    found = await attempt(store, tmp_path / "a")
    for key in (KEY, OTHER, KEY, OTHER):
        await found.run("export", key, work)
    assert work.times == 2


async def test_an_earlier_attempts_folder_is_used_as_far_as_it_is_right(store: LocalStore, tmp_path: Path) -> None:
    work, folder = Work(), tmp_path / "a"
    await (await attempt(store, folder)).run("export", KEY, work)
    (folder / "export" / "notes.txt").write_text("other")
    (folder / "export" / "left over").write_text("x")
    (folder / "export" / "more").mkdir()
    blob = layout.run_blob(RUN.run_id, codec.sha256(b"graph" * 1000))
    await store.delete(blob)  # not needed: the file is here
    found = await (await attempt(store, folder)).run("export", KEY, work)
    assert found.was_stored
    assert sorted(path.name for path in found.folder.iterdir()) == ["model.onnx", "notes.txt"]
    assert found.path("notes.txt").read_text() == "small"


def _truncate(store: LocalStore, record: StageRecord) -> None:
    store.path(layout.run_blob(RUN.run_id, record.files[0].sha256)).write_bytes(b"short")


def _flip(store: LocalStore, record: StageRecord) -> None:
    path = store.path(layout.run_blob(RUN.run_id, record.files[0].sha256))
    path.write_bytes(b"X" + path.read_bytes()[1:])


def _remove(store: LocalStore, record: StageRecord) -> None:
    store.path(layout.run_blob(RUN.run_id, record.files[1].sha256)).unlink()


def _scribble(store: LocalStore, record: StageRecord) -> None:
    store.path(layout.stage(RUN.run_id, record.stage, record.key)).write_bytes(b'{"schema_version":1}')


@pytest.mark.parametrize("damage", [_truncate, _flip, _remove, _scribble])
@pytest.mark.parametrize("text", ["graph", "another graph"])
async def test_a_damaged_stage_is_done_again_with_a_warning_and_is_whole_afterwards(
    store: LocalStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[LocalStore, StageRecord], None],
    text: str,
) -> None:
    first = await (await attempt(store, tmp_path / "a")).run("export", KEY, Work())
    damage(store, first.record)
    again = Work(text)
    with caplog.at_level(logging.WARNING):
        redone = await (await attempt(store, tmp_path / "b")).run("export", KEY, again)
    assert (again.times, redone.was_stored) == (1, False)
    assert "stage 'export' of run 'flights-1' is damaged in the store and done again" in caplog.text
    third = await (await attempt(store, tmp_path / "c")).run("export", KEY, again)
    assert third.was_stored
    assert third.path("model.onnx").read_bytes() == text.encode() * 1000


async def test_two_attempts_at_one_stage_get_the_same_files(store: LocalStore, tmp_path: Path) -> None:
    """They make different ones, as timings do."""
    a, b = await attempt(store, tmp_path / "a"), await attempt(store, tmp_path / "b")
    results = await asyncio.gather(a.run("export", KEY, Work("one")), b.run("export", KEY, Work("two")))
    assert results[0].digests == results[1].digests
    assert results[0].path("model.onnx").read_bytes() == results[1].path("model.onnx").read_bytes()
    assert sorted(result.was_stored for result in results) == [False, True]


async def test_a_crash_anywhere_in_a_stage_leaves_it_missing_or_whole(store: LocalStore, tmp_path: Path) -> None:
    claimed = await opened(store)
    number, work = 0, Work()
    while True:
        number += 1
        key = stages.digest("crash", number)
        crashing = CrashingStore(store, crash_at=number, after_effect=bool(number % 2))
        broken = Stages(crashing, claimed, tmp_path / f"a{number}", Tracker())  # type: ignore[arg-type]
        try:
            await broken.run("export", key, work)
        except Crash:
            pass
        else:
            if crashing.calls < number:
                break
        found = await Stages(store, claimed, tmp_path / f"b{number}", Tracker()).run("export", key, work)
        assert found.path("model.onnx").read_bytes() == b"graph" * 1000
    assert number >= 4


async def test_what_work_raises_comes_out_and_nothing_is_stored(store: LocalStore, tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "half.bin").write_text("half")
        raise ZeroDivisionError

    found = await attempt(store, tmp_path / "a")
    with pytest.raises(ZeroDivisionError):
        await found.run("export", KEY, work)
    assert await reading.stages(store, RUN.run_id) == []
    assert (await found.run("export", KEY, Work())).was_stored is False


@pytest.mark.parametrize("leave", [lambda folder: None, lambda folder: (folder / "sub").mkdir()])
async def test_a_stage_leaves_plain_files(store: LocalStore, tmp_path: Path, leave: Callable[[Path], None]) -> None:
    with pytest.raises(ValueError, match="stage 'export' must leave plain files in its folder, at least one"):
        await (await attempt(store, tmp_path / "a")).run("export", KEY, leave)


@pytest.mark.parametrize(("stage", "key"), [("../up", KEY), ("Export", KEY), ("export", "../x"), ("export", "")])
async def test_a_name_that_is_none_reaches_no_key(store: LocalStore, tmp_path: Path, stage: str, key: str) -> None:
    work = Work()
    with pytest.raises(ValueError, match="a short lower-case name and a sha256 are wanted"):
        await (await attempt(store, tmp_path / "a")).run(stage, key, work)
    assert work.times == 0


def test_a_key_is_of_everything_that_goes_in() -> None:
    assert stages.digest("a", {"x": "1", "y": "2"}) == stages.digest("a", {"y": "2", "x": "1"})
    keys = {stages.digest(*inputs) for inputs in [("a", "b"), ("ab",), ("b", "a"), ("a", None), ("a", 1), (RUN,)]}
    assert len(keys) == 6

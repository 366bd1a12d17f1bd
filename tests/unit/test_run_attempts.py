"""One run and its attempts in one process: cancelled while it trains, refused before it trains, in a folder of its own."""

import asyncio
import contextlib
import threading
from pathlib import Path

import msgspec
import pytest
import torch

from gateway.contract import layout
from gateway.objectstore.opening import open_store
from tests.support.tinyjob import TinyModule, tiny_data, tiny_job
from trainers.errors import DataError, SpecError
from trainers.job import Data, TrainJob
from trainers.run import Run, run
from trainers.runs import reading, scratch

EPOCHS = 60
STEPS = EPOCHS * 10


def silent(step: str, done: int, total: int, note: str = "") -> None:
    pass


def asked(folder: Path) -> Run:
    return Run(recipe="tiny", run_id="one", folder=folder / "run", actor="anna", promote_to=None)


def fitted(**fields: int) -> TrainJob:
    return msgspec.structs.replace(tiny_job(), fit=msgspec.structs.replace(tiny_job().fit, **fields))


class Telling(TinyModule):
    """Says when it trains."""

    def __init__(self, data: Data, trains: threading.Event) -> None:
        super().__init__([len(known) for known in data.vocabularies.values()])
        self._trains = trains

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        if self.training:
            self._trains.set()
        return super().forward(categories, numbers)

    def __deepcopy__(self, memo: object) -> torch.nn.Module:
        copied = TinyModule([len(embedding.weight) - 1 for embedding in self.embeddings])
        copied.load_state_dict(self.state_dict())
        return copied


def test_a_cancelled_run_stops_training_and_saves_what_it_has(tmp_path: Path):
    """As when its schedule's lease is lost: nobody waits for, or pays for, the rest of the training."""
    trains = threading.Event()
    job = msgspec.structs.replace(
        fitted(epochs=EPOCHS, patience=EPOCHS), load=tiny_data, module=lambda data: Telling(data, trains)
    )

    async def cancelled() -> reading.Tried:
        store = open_store(str(tmp_path / "store"), create=True)
        running = asyncio.create_task(run(job, asked(tmp_path), store, silent))
        await asyncio.to_thread(trains.wait, 60)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        (tried,) = await reading.tried(store, "one")
        await store.aclose()
        return tried

    ended = asyncio.run(cancelled()).end
    assert ended is not None
    assert (ended.outcome, ended.exit_code) == ("preempted", 75)
    assert 0 < ended.progress.step_last < STEPS
    assert ended.kept_step == ended.progress.step_last


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("epochs", -1), ("batch_rows", 0), ("patience", -1), ("seed", -1), ("seed", 2**70)],
)
def test_what_nothing_can_be_trained_with_is_refused_before_anything_is_written(tmp_path: Path, field: str, value: int):
    store = open_store(str(tmp_path / "store"), create=True)
    with pytest.raises(SpecError, match=rf"{field} is {value}; it must be at (least|most) \d+"):
        asyncio.run(run(fitted(**{field: value}), asked(tmp_path), store, silent))


def test_two_attempts_on_one_machine_have_a_folder_each(tmp_path: Path):
    with scratch.own(tmp_path / "run", 1) as first:
        with scratch.own(tmp_path / "run", 2) as second:
            assert first == tmp_path / "run"
            assert second not in {first, first / "fit"}
            second.mkdir()
        assert not second.exists()
    with scratch.own(tmp_path / "run", 3) as third:
        assert third == first


def logged(folder: Path, job: TrainJob) -> str:
    async def read() -> str:
        async with contextlib.aclosing(open_store(str(folder / "store"), create=True)) as store:
            with contextlib.suppress(ZeroDivisionError, DataError):
                await run(job, asked(folder), store, silent)
            keys = [info.key async for info in store.list(layout.logs("one", 1))]
            return "".join([(await store.get(key)).body.decode() for key in keys])

    return asyncio.run(read())


def test_a_defect_leaves_its_traceback_in_the_runs_log(tmp_path: Path):
    text = logged(tmp_path, msgspec.structs.replace(fitted(epochs=1), module=lambda data: 1 / 0))  # type: ignore[arg-type,return-value]
    assert "attempt 1 begins on " in text
    assert "load is done\n" in text
    assert "ZeroDivisionError: division by zero" in text


def test_wrong_data_leaves_its_sentence_in_the_runs_log(tmp_path: Path):
    def load() -> Data:
        raise DataError("the table has no rows")

    text = logged(tmp_path, msgspec.structs.replace(fitted(epochs=1), load=load))
    assert text.endswith(" ended: the table has no rows\n")
    assert "Traceback" not in text

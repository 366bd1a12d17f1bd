"""The whole life of a run on a real S3 server: raced claims, a death, stages found again, the bill, and what the commands say."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.contract import codec, layout
from gateway.contract.runs import TrainingCharge
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import stores
from tests.support.trainingruns import RUN, S, closed, opened
from trainers.runs import reading
from trainers.runs.commands import runs as command
from trainers.runs.heartbeat import Beating
from trainers.runs.journal import Journal
from trainers.runs.progress import Tracker
from trainers.runs.records import Attempt
from trainers.runs.stages import Stages, digest


@pytest.fixture(params=["moto", pytest.param("seaweedfs", marks=pytest.mark.e2e)])
def url(request: pytest.FixtureRequest) -> str:
    return stores.empty(request)


def export(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"graph" * 100_000)


async def beat(store: ObjectStore, attempt: Attempt, fenced: list[str]) -> None:
    tracker = Tracker()
    with tracker.stage("train"):
        tracker.steps_begin(0, total=100)
        tracker.step(30)
        tracker.saved(20)
        await Beating(store, attempt, tracker, on_cancel=print, on_fenced=fenced.append).beat()


async def live(store: ObjectStore, folder: Path) -> list[str]:
    """Six attempts claim at once and all die after a heartbeat; the seventh gets done."""
    attempts = sorted(await asyncio.gather(*(opened(store) for _ in range(6))), key=lambda attempt: attempt.number)
    fenced: list[str] = []
    for attempt in [*attempts, attempts[0]]:
        await beat(store, attempt, fenced)
    await Stages(store, attempts[5], folder / "a", Tracker()).run("export", digest("x"), export)
    last = await opened(store)
    stored = await Stages(store, last, folder / "b", Tracker()).run("export", digest("x"), lambda folder: None)
    assert stored.was_stored
    async with Journal(store, RUN.run_id, last.number) as journal:
        journal.log("done")
        journal.metrics(100, loss=0.5)
    await closed(store, last)
    return fenced


def test_a_run_lives_on_s3_as_in_a_folder(url: str, tmp_path: Path) -> None:
    async def lived() -> tuple[list[str], list[TrainingCharge], reading.RunView]:
        async with contextlib.aclosing(open_store(url)) as store:
            fenced = await live(store, tmp_path)
            keys = [info.key async for info in store.list(layout.TRAINING)]
            charges = [codec.decode((await store.get(key)).body, TrainingCharge) for key in keys]
            return fenced, charges, await reading.one(store, RUN.run_id)

    fenced, charges, view = asyncio.run(lived())
    assert fenced == ["attempt 6 of run 'flights-1' has taken over"]
    assert [tried.attempt.attempt for tried in view.tried] == list(range(1, 8))
    assert [charge.attempt for charge in charges] == list(range(1, 8))
    assert [charge.outcome for charge in charges] == ["lost"] * 6 + ["done"]
    # Only the sixth's heartbeat was still there when the seventh settled them all.
    assert [charge.evidence for charge in charges[5:]] == ["heartbeat", "end"]
    assert charges[5].steps_lost == 10
    assert charges[6].elapsed_ns == 60 * S

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(command, [*arguments, "--store", url])
        assert result.exit_code == 0, result.output
        return result.stdout

    [row] = json.loads(said("list", "--format", "json"))
    assert (row["state"], len(row["attempts"])) == ("done", 7)
    assert row["cost_picousd"] == sum(charge.cost_picousd or 0 for charge in charges)
    assert said("logs", RUN.run_id, "--attempt", "7").endswith("Z done\n")
    assert "is over already: done" in said("cancel", RUN.run_id)

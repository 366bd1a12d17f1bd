"""The live page's answers are made by another process, once for all who ask at the same time, and kept for a minute."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import InvalidInput, ModelNotFound, Overloaded, Unavailable
from gateway.reports import live
from gateway.reports.live import KEPT_S, WAITING_MAX, LivePage
from gateway.reports.query import Query, parse
from tests.support import ledgers

WORKER = """
import os, sys
order = sys.stdin.read()
with open(sys.argv[1], "a") as log:
    log.write(f"{os.getpid()}\\n")
open(sys.argv[2]).read()  # until the test opens the gate
sys.stdout.write(f"made by {os.getpid()}")
"""


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Gated:
    """A page whose worker waits at a named pipe until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.log, self.gate, self.clock = folder / "log", folder / "gate", Clock()
        self.log.touch()
        os.mkfifo(self.gate)
        command = (sys.executable, "-c", WORKER, str(self.log), str(self.gate))
        self.page = LivePage("store", folder, self.clock, command=command)

    async def let_go(self) -> None:
        await asyncio.to_thread(self.gate.write_text, "go")

    def pids(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()]


@pytest.fixture
async def gated(tmp_path: Path) -> AsyncIterator[Gated]:
    made = Gated(tmp_path)
    yield made
    await made.page.aclose()


async def test_readers_at_the_same_time_share_one_process_that_is_not_ours(gated: Gated):
    readers = [asyncio.create_task(gated.page.answer(Query(), "html")) for _ in range(50)]
    await gated.let_go()  # this loop goes on running while the report is being made
    answers = set(await asyncio.gather(*readers))
    [pid] = gated.pids()
    assert answers == {b"made by %d" % pid}
    assert pid != os.getpid()
    assert gated.page.started == 1


async def test_answer_is_kept_for_a_minute(gated: Gated):
    for now_s, made in ((0.0, 1), (KEPT_S - 1, 1), (KEPT_S, 2)):
        gated.clock.now_s = now_s
        reading = asyncio.create_task(gated.page.answer(Query(), "html"))
        await asyncio.sleep(0)
        if gated.page.started < made:
            await gated.let_go()
        await reading
        assert gated.page.started == len(gated.pids()) == made


async def test_reader_who_leaves_takes_nothing_from_the_others(gated: Gated):
    leaving, staying = (asyncio.create_task(gated.page.answer(Query(), "csv")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await gated.let_go()
    assert (await staying).startswith(b"made by")
    assert leaving.cancelled() or (await asyncio.gather(leaving, return_exceptions=True))


async def test_questions_beyond_the_limit_are_refused(gated: Gated):
    queries = [Query(model=f"m{number}") for number in range(WAITING_MAX)]
    waiting = [asyncio.create_task(gated.page.answer(query, "json")) for query in queries]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="ask again"):
        await gated.page.answer(Query(), "json")
    answers = set()
    for task in waiting:  # one at a time: the next one comes to the gate when this one is done
        await gated.let_go()
        answers.add(await task)
    assert len(answers) == WAITING_MAX


async def test_closing_ends_the_process(gated: Gated):
    reading = asyncio.create_task(gated.page.answer(Query(), "html"))
    opened = asyncio.create_task(
        asyncio.to_thread(gated.gate.open, "w")
    )  # returns when the worker has come to the gate
    gate = await opened
    await gated.page.aclose()
    gate.close()
    [pid] = gated.pids()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_report_that_takes_too_long_is_stopped(gated: Gated, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "TIME_MAX_S", 0.05)
    with pytest.raises(Unavailable, match="shorter period"):
        await gated.page.answer(Query(), "html")


async def test_failure_is_told_logged_and_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    page = LivePage("s", tmp_path, Clock(), command=(sys.executable, "-c", "raise SystemExit('out of memory')"))
    for started in (1, 2):
        with pytest.raises(Unavailable, match="log says why"):
            await page.answer(Query(), "html")
        assert page.started == started
    assert "out of memory" in caplog.text


async def test_real_report_and_real_refusals(tmp_path: Path):
    ledgers.write(tmp_path / "store", ledgers.random_ledger(11))
    page = LivePage(str(tmp_path / "store"), tmp_path / "copies", Clock())
    assert b"<svg" in await page.answer(Query(), "html")
    with pytest.raises(ModelNotFound, match="digits"):
        await page.answer(Query(model="nope"), "json")


async def test_folder_that_others_can_write_is_refused(tmp_path: Path):
    copies = tmp_path / "copies"
    copies.mkdir()
    copies.chmod(0o777)
    with pytest.raises(Unavailable, match="others can write"):
        await LivePage(str(tmp_path), copies, Clock()).answer(Query(), "json")


def test_query_of_a_form_is_read():
    pairs = [
        ("by", "day,model"),
        ("since", "2026-11-05T12:00"),
        ("until", ""),
        ("view", "idle-to-cause"),
        ("model", "a b"),
    ]
    assert parse(pairs) == Query(("day", "model"), ledgers.T0_NS, None, "a b", None, "idle-to-cause")


@pytest.mark.parametrize(
    "pairs",
    [
        [("colour", "red")],
        [("by", "model"), ("by", "day")],
        [("by", "model,colour")],
        [("view", "kind")],
        [("since", "yesterday")],
        [("since", "2026-11-06"), ("until", "2026-11-05")],
        [("model", "x" * 257)],
        [("amortize", "days:x")],
    ],
)
def test_bad_query_is_refused(pairs: list[tuple[str, str]]):
    with pytest.raises(InvalidInput):
        parse(pairs)

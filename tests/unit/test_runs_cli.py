"""`steelyard runs` in a pipe: what it lists, shows and decides about runs, and what it says when that cannot be."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.contract import layout
from gateway.contract.runs import Heartbeat, Progress
from gateway.objectstore.local import LocalStore
from tests.support import trainingruns
from tests.support.trainingruns import RUN, S, closed, opened, run
from trainers.runs import resuming
from trainers.runs.commands import runs as command
from trainers.runs.heartbeat import Beating
from trainers.runs.journal import Journal
from trainers.runs.progress import Tracker
from trainers.runs.records import Attempt
from trainers.runs.stages import Stages, digest

HALF = Progress(step_first=0, step_last=50, step_saved=40, steps_ns=50 * S)
REST = Progress(step_first=40, step_last=100, step_saved=100, steps_ns=60 * S)


def ran(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--store", str(store)])


def said(store: Path, *arguments: str) -> str:
    result = ran(store, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def shown(store: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(store, "show", name, "--format", "json"))
    return found


def within(store: Path, work: Callable[[LocalStore], Awaitable[object]]) -> None:
    async def worked() -> None:
        await work(LocalStore(store))

    asyncio.run(worked())


async def beat(store: LocalStore, attempt: Attempt, *, age_s: float = 0.0, step: int = 30) -> None:
    """One heartbeat of an attempt 60 s old, half of whose steps are saved."""
    steady_ns = [0]
    tracker = Tracker(clock_ns=lambda: steady_ns[0])
    with tracker.stage("train"):
        tracker.steps_begin(0, total=100)
        steady_ns[0] = 60 * S
        tracker.step(step, examples=step * 10, loss=0.25)
        tracker.saved(step // 2)
        at_ns = time.time_ns() - round(age_s * S)
        await Beating(store, attempt, tracker, on_cancel=print, on_fenced=print, now_ns=lambda: at_ns).beat()


async def interrupted_and_done(store: LocalStore) -> None:
    """Preempted at step 50 with 40 saved, then done on a machine without a known market."""
    await closed(
        store, await opened(store), "preempted", HALF, exit_code=143, message="SIGTERM: [bold]2 minutes[/] left"
    )
    attempt = await opened(store, placement=trainingruns.Placement())
    stages = Stages(store, attempt, Path(store.url.removeprefix("file://")) / ".tmp" / "stages", Tracker())
    await stages.run("export", digest("export"), lambda folder: (folder / "model.onnx").write_text("x"))  # type: ignore[arg-type, return-value]
    async with Journal(store, RUN.run_id, attempt.number) as journal:
        journal.metrics(90, loss=0.5, lr=0.001)
        journal.metrics(100, loss=0.25)
        journal.log("epoch 3 of 3\n\x1b[31mred\x1b[0m")
    await store.put_if_absent(layout.decision(RUN.run_id), b'{"decision":"hold","reason":"not better"}')
    await closed(store, attempt, "done", REST, elapsed_ns=70 * S)


async def several(store: LocalStore) -> None:
    await interrupted_and_done(store)
    await beat(store, await opened(store, run("running", created_ns=RUN.created_ns + S)))
    await beat(store, await opened(store, run("lost", created_ns=RUN.created_ns + 2 * S)), age_s=100)
    await closed(store, await opened(store, run("unpriced", created_ns=RUN.created_ns + 3 * S), sku="nosuch",
                                     placement=trainingruns.Placement()), "failed", exit_code=70)  # fmt: skip
    await store.put_if_absent("runs/daily/2026-11-25.json", b"somebody else's")


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines() if line.strip()]


def test_runs_are_listed_newest_first_with_their_cost_and_waste(tmp_path: Path) -> None:
    within(tmp_path, several)
    head, unpriced, lost, running, done, total, *notes = cells(said(tmp_path, "list"))
    assert head == ["run", "model", "state", "progress", "attempts", "cost", "wasted", "age"]
    assert unpriced[:7] == ["unpriced", "flights", "failed", "-", "1", "unpriced", "unpriced"]
    # 60 s at $0.1578/h; of 30 steps 15 were saved when the heartbeats ended, and none is lost while it runs.
    assert lost[2].startswith("lost for 10")
    assert lost[:2] + lost[3:7] == ["lost", "flights", "train 30/100", "1", "$0.002630", "$0.001315"]
    assert running[:7] == ["running", "flights", "running", "train 30/100", "1", "$0.002630", "$0"]
    assert done[:7] == ["flights-1", "flights", "done", "-", "2", "$0.01286", "$0.001899"]
    assert total == ["4 runs", "5", "$0.01812", "$0.003214"]
    assert notes == [
        ["attempts without a known price, in no sum: 1"],
        ["unsettled, counted up to the last heartbeat: lost 1"],
    ]


def test_json_has_every_record_and_exact_sums(tmp_path: Path) -> None:
    within(tmp_path, several)
    listed = json.loads(said(tmp_path, "list", "--format", "json"))
    assert [row["run"]["run_id"] for row in listed] == ["unpriced", "lost", "running", "flights-1"]
    assert [row["state"] for row in listed] == ["failed", "lost", "running", "done"]
    assert listed[1]["attempts"][0]["so_far"]["outcome"] == "lost"
    done = listed[3]
    ends = [attempt["end"] for attempt in done["attempts"]]
    assert done["cost_picousd"] == sum(end["cost_picousd"] for end in ends)
    assert [end["steps_lost"] for end in ends] == [10, 0]
    assert done["wasted_picousd"] == sum(end["wasted_picousd"] for end in ends)
    one = shown(tmp_path, "flights-1")
    assert one["metrics"] == {"loss": 0.25, "lr": 0.001}
    assert one["decision"] == {"decision": "hold", "reason": "not better"}
    assert [stage["stage"] for stage in one["stages"]] == ["export"]


def test_one_run_shows_attempts_stages_metrics_decision_and_cost(tmp_path: Path) -> None:
    within(tmp_path, interrupted_and_done)
    text = said(tmp_path, "show", "flights-1")
    rows = cells(text)
    assert rows[0] == ["flights-1: flights from recipe flights, seed 7, done"]
    first = next(row for row in rows if row[0] == "1")
    assert first == [
        "1", "g4dn.xlarge", "spot us-east-1a", "2026-09-21 14:13", "preempted 143",
        "0.1578", "60.0 s", "0-50", "10", "$0.002630", "$0.0004383",
    ]  # fmt: skip
    assert ["attempt 1: SIGTERM: [bold]2 minutes[/] left"] in rows
    second = next(row for row in rows if row[0] == "2")
    assert (second[2], second[4:6]) == ("unknown", ["done", "0.526"])
    assert ["loss", "0.25", "100"] in rows
    assert ["lr", "0.001", "90"] in rows
    assert any(row[0] == "export" and row[2:] == ["2", row[3], "1", "model.onnx"] for row in rows)
    assert ["decision: hold, not better"] in rows
    assert rows[-1] == ["cost: $0.01286, of which wasted $0.001899 on 10 steps lost"]


def test_a_running_run_shows_its_heart(tmp_path: Path) -> None:
    async def work(store: LocalStore) -> None:
        await beat(store, await opened(store), age_s=-3600)

    within(tmp_path, work)
    text = said(tmp_path, "show", "flights-1")
    assert "in the future: its clock and this one differ: attempt 1, train 30/100, loss 0.25, 5 examples/s" in text
    assert next(row for row in cells(text) if row[0] == "1")[4] == "running"


# Logs


@pytest.mark.parametrize(
    ("stage", "total", "says"),
    [("fit", 9, "fit 4/9"), ("between", 9, "4/9"), ("start", 0, "-"), ("between", 0, "-"), ("export", 0, "export")],
)
def test_progress_is_of_a_stage_at_work_and_else_of_the_steps(
    tmp_path: Path, stage: str, total: int, says: str
) -> None:
    async def begun(store: LocalStore) -> None:
        attempt = await opened(store)
        beat = Heartbeat(
            run_id=RUN.run_id,
            attempt=attempt.number,
            at_ns=time.time_ns(),
            interval_ns=30 * S,
            elapsed_ns=S,
            stage=stage,
            step=4,
            steps_total=total,
            progress=Progress(step_first=0, step_last=4, step_saved=0, steps_ns=S),
        )
        await store.put_if_absent(layout.heartbeat(RUN.run_id), msgspec.json.encode(beat))

    within(tmp_path, begun)
    line = said(tmp_path, "list").splitlines()[1]
    assert f" {says} " in line


def test_logs_of_all_attempts_or_of_one_move_no_cursor(tmp_path: Path) -> None:
    async def work(store: LocalStore) -> None:
        first = await opened(store)
        async with Journal(store, RUN.run_id, 1) as journal:
            journal.log("stopping")
        await closed(store, first, "preempted", HALF)
        async with Journal(store, RUN.run_id, (await opened(store)).number) as journal:
            journal.log("\x1b[31mred")

    within(tmp_path, work)
    every = said(tmp_path, "logs", "flights-1").splitlines()
    assert [line.split(" ", 3)[::3] for line in every] == [["1", "stopping"], ["2", "�[31mred"]]
    assert said(tmp_path, "logs", "flights-1", "--attempt", "2").endswith("Z �[31mred\n")


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    within(tmp_path, interrupted_and_done)
    assert "epoch 3 of 3" in said(tmp_path, "logs", "flights-1", "--follow")


async def test_following_prints_what_comes_while_it_runs(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    attempt = await opened(store)
    await beat(store, attempt)
    async with Journal(store, RUN.run_id, 1) as journal:
        journal.log("before")
    following = asyncio.create_task(asyncio.to_thread(ran, tmp_path, "logs", "flights-1", "--follow"))
    await store.put_if_absent(layout.logs_segment(RUN.run_id, 1, 1), b"after\n")
    await closed(store, attempt)
    result = await following
    assert result.output.splitlines()[-1] == "1  after"


def test_nothing_logged_is_said(tmp_path: Path) -> None:
    within(tmp_path, opened)
    result = ran(tmp_path, "logs", "flights-1", "--attempt", "1")
    assert result.stdout == ""
    assert result.stderr == "run 'flights-1' has logged nothing in attempt 1 yet\n"


# Cancel and resume


def test_a_running_run_is_cancelled_once_and_then_resumed(tmp_path: Path) -> None:
    async def work(store: LocalStore) -> None:
        await beat(store, await opened(store))

    within(tmp_path, work)
    assert "is cancelled: attempt 1 hears of it within 30 s" in said(
        tmp_path, "cancel", "flights-1", "--reason", "late"
    )
    assert "was cancelled already, by " in said(tmp_path, "cancel", "flights-1")
    assert shown(tmp_path, "flights-1")["state"] == "cancelling"
    assert "cancelled by" in said(tmp_path, "show", "flights-1")
    refused = ran(tmp_path, "resume", "flights-1", "--print")
    assert refused.exit_code == 1
    assert "is running: attempt 1 gave a sign of life at" in refused.stderr
    assert "stage 'train', step 30 of 100. It counts as lost after 90 s" in refused.stderr
    assert said(tmp_path, "resume", "flights-1", "--print", "--take-over") == (
        f"steelyard train flights --run-id flights-1 --seed 7 --store {tmp_path}\n"
    )
    assert shown(tmp_path, "flights-1")["cancellation"] is None


def test_a_resumed_run_is_asked_for_by_this_python_with_what_it_was_asked_with() -> None:
    asked = resuming.Resumption(RUN, "preempted", resuming.command(RUN))
    words = ["-m", "trainers", "flights", "--run-id", "flights-1", "--seed", "7", "--store", "s3://b/p"]
    assert asked.argv("s3://b/p") == [sys.executable, *words]


def test_a_lost_run_is_settled_when_it_is_cancelled_or_resumed(tmp_path: Path) -> None:
    async def work(store: LocalStore) -> None:
        for name in ("a", "b"):
            await beat(store, await opened(store, run(name)), age_s=1000)

    within(tmp_path, work)
    assert "run 'a' is cancelled: it is lost" in said(tmp_path, "cancel", "a")
    assert "--run-id b" in said(tmp_path, "resume", "b", "--print")
    for name in ("a", "b"):
        [attempt] = shown(tmp_path, name)["attempts"]
        assert (attempt["end"]["evidence"], attempt["end"]["steps_lost"]) == ("heartbeat", 15)
        assert (tmp_path / layout.training_charge(name, 1)).is_file()


def test_what_is_over_is_neither_cancelled_nor_resumed(tmp_path: Path) -> None:
    within(tmp_path, interrupted_and_done)
    assert "run 'flights-1' is over already: done since 2026-09-21T14:14:20Z" in said(tmp_path, "cancel", "flights-1")
    refused = ran(tmp_path, "resume", "flights-1")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: run 'flights-1' is done already; there is nothing to resume\n",
    )


@pytest.mark.parametrize("recipe", ["--store=elsewhere", "a b", "", "x;y"])
def test_a_stored_recipe_is_never_read_as_an_option(tmp_path: Path, recipe: str) -> None:
    within(tmp_path, lambda store: opened(store, msgspec.structs.replace(RUN, recipe=recipe)))
    refused = ran(tmp_path, "resume", "flights-1", "--take-over")
    assert refused.exit_code == 1
    assert "names no recipe that could be run" in refused.stderr


# What cannot be


@pytest.mark.parametrize("arguments", [("show",), ("logs",), ("cancel",), ("resume", "--print")])
def test_an_unknown_run_names_the_nearest(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    within(tmp_path, opened)
    name, *flags = arguments
    result = ran(tmp_path, name, "flihgts-1", *flags)
    assert (result.exit_code, result.stderr) == (1, "Error: no run is named 'flihgts-1'; nearest: flights-1\n")
    assert "there are: flights-1" in ran(tmp_path, name, "zzz", *flags).stderr
    assert "there are: flights-1" in ran(tmp_path, name, "../etc", *flags).stderr


def test_an_attempt_that_is_not_there_is_refused(tmp_path: Path) -> None:
    within(tmp_path, opened)
    assert (
        "run 'flights-1' has no attempt 3; there are: 1" in ran(tmp_path, "logs", "flights-1", "--attempt", "3").stderr
    )


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    assert "no runs in" in said(tmp_path, "list")
    assert said(tmp_path, "list", "--format", "json") == "[]\n"
    assert "there are none in this store yet" in ran(tmp_path, "show", "a").stderr


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(tmp_path: Path) -> None:
    within(tmp_path, several)
    (tmp_path / layout.attempt("lost", 1)).write_bytes(b"{")
    result = ran(tmp_path, "list")
    assert result.exit_code == 1
    assert "Error: 'runs/lost/attempts/0001.json' is not valid" in result.stderr
    assert [row[0] for row in cells(result.stdout)][1:4] == ["unpriced", "running", "flights-1"]

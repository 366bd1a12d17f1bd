"""Real processes that train, and are killed: nothing they kept is lost, and somebody else writes their bill."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.contract import codec, layout
from gateway.contract.runs import TrainingCharge
from gateway.objectstore.local import LocalStore
from tests.support.trainingprocess import SAVED_BEHIND
from tests.support.trainingruns import RUN
from trainers.runs import reading
from trainers.runs.commands import runs as command


@contextlib.contextmanager
def training(store: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process at work on the run; dead at the end whatever happens."""
    arguments = [sys.executable, "-m", "tests.support.trainingprocess", str(store)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the training process ended by itself"
    return line.strip()


def charges(store: Path) -> list[TrainingCharge]:
    paths = sorted((store / layout.TRAINING).rglob("*.json"))
    return [codec.decode(path.read_bytes(), TrainingCharge) for path in paths]


async def test_a_killed_process_leaves_no_end_and_the_next_attempt_settles_it(tmp_path: Path) -> None:
    with training(tmp_path) as process:
        while next_line(process) != "1 50":
            pass
        process.kill()
    store = LocalStore(tmp_path)
    before = await reading.one(store, RUN.run_id)
    assert before.tried[0].end is None
    assert charges(tmp_path) == []
    beat = before.heartbeat
    assert beat is not None
    assert reading.state(before, beat.at_ns) == "running"
    late_ns = beat.at_ns + 3 * beat.interval_ns
    assert reading.state(before, late_ns) == "lost"
    assert before.unsettled(late_ns) == (1,)

    with training(tmp_path) as process:
        first = next_line(process)
        process.kill()

    assert first == f"2 {beat.progress.step_saved + 10}"
    [charge] = charges(tmp_path)
    assert (charge.attempt, charge.outcome, charge.evidence) == (1, "lost", "heartbeat")
    assert charge.steps_lost == SAVED_BEHIND
    assert charge.steps_done == beat.step
    assert charge.elapsed_ns == beat.elapsed_ns
    assert 0 < (charge.wasted_picousd or 0) < (charge.cost_picousd or 0)


def test_a_stale_process_hears_that_it_is_fenced(tmp_path: Path) -> None:
    with training(tmp_path) as old:
        next_line(old)
        with training(tmp_path) as new:
            while not next_line(new).startswith("2 "):
                pass  # the old one beats without a pause, and may be quicker once or twice
            said = ""
            while "has taken over" not in said:
                said = next_line(old)
            assert said == "attempt 2 of run 'flights-1' has taken over"
            assert old.wait(30) == 0
            assert next_line(new).startswith("2 ")


def test_a_cancelled_process_hears_of_it_and_its_logs_remain(tmp_path: Path) -> None:
    with training(tmp_path) as process:
        next_line(process)
        done = CliRunner().invoke(command, ["cancel", RUN.run_id, "--store", str(tmp_path)])
        assert "is cancelled: attempt 1 hears of it" in done.output
        said = ""
        while "cancelled by" not in said:
            said = next_line(process)
        assert process.wait(30) == 0
    logs = CliRunner().invoke(command, ["logs", RUN.run_id, "--attempt", "1", "--store", str(tmp_path)])
    assert logs.output.splitlines()[0].endswith(" step 10")


@pytest.mark.e2e
def test_resuming_runs_the_command_that_asked_for_the_run(tmp_path: Path) -> None:
    """The recipe is none, so the command that takes this process's place refuses: it was the right one."""
    code = (
        "import asyncio, sys\n"
        "from gateway.objectstore.local import LocalStore\n"
        "from pathlib import Path\n"
        "from tests.support import trainingruns as t\n"
        "async def work():\n"
        "    store = LocalStore(Path(sys.argv[1]))\n"
        "    await t.closed(store, await t.opened(store, t.run('gone', recipe='nosuchrecipe')), 'preempted')\n"
        "asyncio.run(work())\n"
        "from trainers.runs.commands import runs\n"
        "runs(['resume', 'gone', '--store', sys.argv[1]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"steelyard train nosuchrecipe --run-id gone --seed 7 --store {tmp_path}\n"
    assert done.returncode not in {0, 1}
    assert "nosuchrecipe" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--help"], ["resume", "--help"]])
def test_help_needs_neither_torch_nor_rich(arguments: list[str]) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['rich'] = sys.modules['numpy'] = sys.modules['boto3'] = None\n"
        "from trainers.runs.commands import runs\n"
        "runs.main(sys.argv[1:], standalone_mode=False)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True)

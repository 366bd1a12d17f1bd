"""CPU time of a run: of this process, of what it started and waits for or not, and of those that torchrun started beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.runs import cputime
from trainers.runs.cputime import NS_PER_TICK, CpuTime, of_tree

MS = 10**6
BURN = "import time\nwhile time.process_time() < {}: pass\nprint('burned', flush=True)\ninput()"


def burning(seconds: float) -> "subprocess.Popen[str]":
    """Has used so much CPU when this returns, and waits for a line then."""
    command = [sys.executable, "-c", BURN.format(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "burned\n"
    return process


def test_children_count_while_they_live_and_after() -> None:
    used = CpuTime({})
    process = burning(0.3)
    living = used()
    assert living >= 300 * MS - 2 * NS_PER_TICK
    process.communicate("\n")
    assert used() >= living


MINE = """
from trainers.runs.cputime import CpuTime, TORCHRUN
used = CpuTime({TORCHRUN: "x"})
print("begun", flush=True)
input()
print(used())
"""
AGENT = """
import subprocess, sys
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
mine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], **pipes)
mine.stdout.readline()
other = subprocess.Popen([sys.executable, "-c", sys.argv[2]], **pipes)
other.stdout.readline()
print(mine.communicate(chr(10))[0])
other.communicate(chr(10))
"""


def test_beside_torchrun_all_of_its_processes_count() -> None:
    """This process is then one of several children of torchrun."""
    command = [sys.executable, "-c", AGENT, MINE, BURN.format(0.3)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) >= 300 * MS - 2 * NS_PER_TICK


def test_what_was_used_is_never_less_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that nobody waits for takes what it used with it."""
    readings = iter([5, 25, 15, 30])
    monkeypatch.setattr(cputime, "of_tree", lambda _: next(readings))
    used = CpuTime({})
    assert [used(), used(), used()] == [20, 20, 25]


def stat(proc: Path, process: int, ticks: str, children: str = "") -> None:
    folder = proc / str(process) / "task" / str(process)
    folder.mkdir(parents=True)
    (proc / str(process) / "stat").write_text(f"{process} (a (strange) name) S {'0 ' * 10}{ticks} 0 0")
    (folder / "children").write_text(children)


def test_a_tree_is_added_up_and_what_is_gone_is_nothing(tmp_path: Path) -> None:
    stat(tmp_path, 1, "1 2 3 4", "2 3 ")
    stat(tmp_path, 2, "10 0 0 0", "4 ")
    stat(tmp_path, 4, "0 100 0 0")
    assert of_tree(1, tmp_path) == 120 * NS_PER_TICK
    assert of_tree(99, tmp_path) == 0
    assert of_tree(os.getpid()) > 0

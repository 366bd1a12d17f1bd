"""`--processes`: what the processes that torchrun starts are told, and what they end with. Real processes are in the e2e tests."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from trainers import exits
from trainers.cli import processes
from trainers.cli.train import train
from trainers.launch import environment

RECIPE = "tests.support.tinyjob:tiny_job"


def test_every_process_finds_in_its_environment_what_it_shall_run(monkeypatch: pytest.MonkeyPatch):
    told: list[environment.Assignment | None] = []

    def run(count: int, arguments: list[str], given: dict[str, str]) -> int:
        told.append(environment.assignment(given))
        return 0

    monkeypatch.setattr(processes, "run", run)
    result = CliRunner().invoke(train, [RECIPE, "--processes", "2", "--run-id", "two", "--store", "./there"])
    assert result.exit_code == 0, result.output
    (assigned,) = told
    assert assigned is not None
    assert (assigned.spec.recipe, assigned.run_id, assigned.store, assigned.launcher) == (
        RECIPE,
        "two",
        "./there",
        "local",
    )


def test_a_defect_in_a_recipe_ends_with_its_own_code_and_its_traceback(tmp_path: Path):
    (tmp_path / "defective.py").write_text('def recipe():\n    raise ValueError("a defect of mine")\n')
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(tmp_path))
        result = CliRunner().invoke(train, ["defective:recipe", "--store", str(tmp_path / "store")])
    assert result.exit_code == exits.BUG
    assert "ValueError: a defect of mine" in result.output
    assert "defective.py" in result.output


def test_who_waits_for_a_word_is_dismissed_when_the_first_process_leaves_without_one(tmp_path: Path):
    script, out = tmp_path / "two.py", tmp_path / "word"
    script.write_text(
        """
import sys
import torch
from trainers.fit.world import joined
with joined(torch.device("cpu")) as world:
    if not world.is_first:
        open(sys.argv[1], "w").write(world.call(""))
"""
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    command = [*launcher, str(script), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert out.read_text() == "nothing"


def test_an_error_that_is_no_failure_still_ends_the_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torchrun ends them only when one fails; the exit code of the command is in the file."""
    fenced = click.ClickException("a newer attempt is at work")
    fenced.exit_code = exits.DONE  # type: ignore[misc]  # as `doors.failed` does
    monkeypatch.setenv(processes.EXIT_FILE, str(tmp_path / "exit"))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as leaving, processes.code_told():
        raise fenced
    assert leaving.value.code == 1
    assert (tmp_path / "exit").read_text() == "0"

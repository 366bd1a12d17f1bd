"""`--processes`: what the processes that torchrun starts are told, and what they end with. Real processes are in the e2e tests."""

from pathlib import Path

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

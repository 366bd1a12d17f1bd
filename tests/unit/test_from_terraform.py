"""`steelyard --from-terraform`: a stack's outputs become a command's environment; whatever is missing is a sentence."""

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from gateway.cli import fromterraform
from gateway.cli import main as cli
from gateway.cli.options import store
from gateway.errors import SettingsError

STACK = {"STEELYARD_STORE": "s3://bucket/team-a", "AWS_REGION": "eu-central-1", "STEELYARD_BATCH_QUEUE_SPOT": "spot"}


def outputs(value: Any = STACK, name: str = "environment") -> str:
    return json.dumps({name: {"sensitive": False, "type": ["map", "string"], "value": value}, "other": {"value": [1]}})


@pytest.fixture
def terraform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of this name on the PATH that prints and exits as told."""

    def installed(printed: str, *, code: int = 0, said: str = "") -> Path:
        program, folder = tmp_path / "bin" / "terraform", tmp_path / "stack"
        program.parent.mkdir()
        folder.mkdir()
        (tmp_path / "printed").write_text(printed)
        (tmp_path / "said").write_text(said)
        program.write_text(
            f'#!/bin/sh\n[ "$*" = "output -json" ] || exit 9\n[ "$PWD" = "{folder}" ] || exit 8\n'
            f'cat "{tmp_path}/printed"; cat "{tmp_path}/said" >&2; exit {code}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return folder

    return installed


def test_a_folder_is_asked_and_a_file_is_read(terraform: Any, tmp_path: Path) -> None:
    assert fromterraform.environment(terraform(outputs())) == STACK
    file = tmp_path / "stack.json"
    file.write_text(outputs())
    assert fromterraform.environment(file) == STACK


def test_a_command_finds_the_store_and_its_own_option_is_stronger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*STACK, "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "from-the-environment")

    @click.command
    @store
    def where(store: str) -> None:
        click.echo(f"{store} {os.environ['AWS_REGION']} {os.environ['STEELYARD_BATCH_QUEUE_SPOT']}")

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: where)
    file = tmp_path / "stack.json"
    file.write_text(outputs())
    assert cli.run(["--from-terraform", str(file), "where"]) == 0
    assert cli.run(["--from-terraform", str(file), "where", "--store", "./mine"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "s3://bucket/team-a eu-central-1 spot",
        "./mine eu-central-1 spot",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "nothing is applied there"),
        (outputs(name="env"), "no output 'environment', as roots of infra/terraform have; there are: env, other"),
        (outputs(value=["a"]), "is no map of texts"),
        (outputs(value={"LD_PRELOAD": "x"}), "sets LD_PRELOAD, which is not for a stack to set"),
        (outputs(value={"AWS_SECRET_ACCESS_KEY": "x"}), "sets AWS_SECRET_ACCESS_KEY"),
        ("Warning: no outputs", "is not what `terraform output -json` prints"),
    ],
)
def test_outputs_that_are_not_a_stacks_are_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "stack.json"
    file.write_text(text)
    with pytest.raises(SettingsError, match=why.replace("(", r"\(")):
        fromterraform.environment(file)


def test_what_terraform_says_is_said_in_a_line(terraform: Any) -> None:
    framed = "\x1b[31m╷\n│ Error: Backend initialization required\n│ \n│ run terraform init\n╵\x1b[0m"
    folder = terraform("", code=1, said=framed)
    with pytest.raises(SettingsError, match=r"stack says: Error: Backend initialization required run terraform init$"):
        fromterraform.environment(folder)


def test_without_terraform_or_folder_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="there is no such folder or file"):
        fromterraform.environment(tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="no terraform on the PATH"):
        fromterraform.environment(tmp_path)


def test_a_refusal_is_misuse_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--from-terraform", str(tmp_path / "nowhere"), "models", "list"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

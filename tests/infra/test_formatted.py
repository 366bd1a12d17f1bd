"""Terraform files are as `terraform fmt` writes them, and every variable says what it is."""

import re
import subprocess

import pytest

from tests.support import hcl, terraform

VARIABLES = [
    (file.relative_to(hcl.FOLDER), block)
    for file in sorted(hcl.FOLDER.rglob("variables.tf"))
    if ".terraform" not in file.parts
    for block in re.findall(r'^variable "\w+" \{.*?^\}', file.read_text(), re.MULTILINE | re.DOTALL)
]


def test_terraform_files_are_formatted() -> None:
    command = [terraform.binary(), "fmt", "-check", "-diff", "-recursive", str(hcl.FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("file", "block"), VARIABLES, ids=[f"{file}:{block.split()[1]}" for file, block in VARIABLES])
def test_a_variable_says_what_it_is(file: object, block: str) -> None:
    assert re.search(r"^  type\s+= ", block, re.MULTILINE), f"{file}: no type\n{block}"
    found = re.search(r'^  description = "(.+)"$', block, re.MULTILINE)
    assert found, f"{file}: no description\n{block}"
    assert found[1].endswith(".") or found[1].endswith("...")


def test_there_are_variables_to_look_at() -> None:
    assert len(VARIABLES) > 80

"""Runs Terraform on a copy of infra/, with its provider from wherever this machine has it.

In this order: TF_CLI_CONFIG_FILE, where it names a file; the mirror in STEELYARD_TF_MIRROR; Terraform's default places and the
public registry, which it tries by itself. Where there is no Terraform, or no provider, tests are skipped and say why.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # Any: JSON

import msgspec
import pytest

REPOSITORY = Path(__file__).parents[2]
MIRROR = "STEELYARD_TF_MIRROR"
PARALLELISM = 30
"""Most of an apply is the provider's waiting: ten at once, the default, takes twice as long."""

_RC = """provider_installation {{
  filesystem_mirror {{
    path    = {mirror}
    include = ["registry.terraform.io/*/*"]
  }}
  direct {{
    exclude = ["registry.terraform.io/*/*"]
  }}
}}
disable_checkpoint = true
"""


class Root(msgspec.Struct, frozen=True):
    """An initialized folder of Terraform files."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> "subprocess.CompletedProcess[str]":
        """Raises `AssertionError` with what Terraform said when it exits with any other code."""
        command = [binary(), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=dict(self.environment), capture_output=True, text=True, check=False
        )
        assert done.returncode in codes, (
            f"terraform {' '.join(arguments)}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
        return done

    def output(self) -> Any:
        """Every output's value by name."""
        return {name: row["value"] for name, row in json.loads(self.run("output", "-json").stdout).items()}


def binary() -> str:
    found = shutil.which("terraform")
    if not found:
        pytest.skip("there is no terraform on the PATH (1.11 or newer): what is tested with it is NOT tested here")
    return found


def copied(folder: Path, root: str = "") -> Root:
    """A root of infra/terraform, such as envs/local, in a copy below `folder`, initialized once, without its backend."""
    copy = folder / "infra"
    if not copy.exists():
        ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*")
        shutil.copytree(REPOSITORY / "infra", copy, ignore=ignored)
    found = Root(copy / "terraform" / root, environment(folder))
    if (found.folder / ".terraform").exists():
        return found
    done = subprocess.run(
        [binary(), "init", "-backend=false", "-input=false", "-no-color"],
        cwd=found.folder, env=dict(found.environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(found.folder / ".terraform", ignore_errors=True)  # or the next test would take it for initialized
        pytest.skip(
            f"terraform finds no AWS provider (set {MIRROR} or TF_CLI_CONFIG_FILE, or let it reach registry.terraform.io): "
            f"what is tested with it is NOT tested here\n{done.stderr[-600:]}"
        )
    return found


def environment(folder: Path) -> dict[str, str]:
    """This process's own, with a way to the provider and without what would point Terraform elsewhere."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))}
    found |= {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    found |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    configured = os.environ.get("TF_CLI_CONFIG_FILE", "")
    if configured and Path(configured).is_file():
        return found | {"TF_CLI_CONFIG_FILE": configured}
    if mirror := os.environ.get(MIRROR):
        file = folder / "terraform.rc"
        file.write_text(_RC.format(mirror=json.dumps(mirror)))
        return found | {"TF_CLI_CONFIG_FILE": str(file)}
    return found

"""Reads what Terraform plans: the resources of `terraform show -json`, from a file, a saved plan, or a directory.

Nothing is applied. Values that are known only after apply are missing from `Resource.values`; whoever prices them says so.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import SettingsError

PLAN_TIMEOUT_S = 300
"""A plan asks the provider about every data source; one that takes longer waits for something that will not come."""


class Resource(msgspec.Struct, frozen=True):
    """One resource that the plan would leave behind. `address` is Terraform's, `values` what is known of it."""

    address: str
    type: str
    values: dict[str, Any]

    @property
    def module(self) -> str:
        """The address of the module it is in, such as `module.gateway`; empty at the root."""
        return self.address.rpartition(f"{self.type}.")[0].rstrip(".")


def read(place: Path) -> list[Resource]:
    """The planned resources of a JSON plan, a saved plan, or a configuration's directory; raises as `load` does."""
    return resources_of(load(place))


def load(place: Path) -> dict[str, Any]:
    """The whole plan as `terraform show -json` has it, of a JSON plan, a saved plan, or a configuration's directory.

    Raises `SettingsError` with what to do when there is no plan to be had.
    """
    if place.is_dir():
        return decoded(_planned(place))
    try:
        data = place.read_bytes()
    except OSError as error:
        raise SettingsError(f"{place}: {error.strerror}; name a directory with *.tf files or a plan's JSON") from error
    if data.startswith(b"PK"):  # a saved plan is a zip
        data = _terraform(place.parent, "show", "-json", place.name)
    return decoded(data)


def decoded(data: bytes) -> dict[str, Any]:
    """What `terraform show -json PLAN` printed. Raises `SettingsError` when it is something else."""
    try:
        plan = json.loads(data)
    except ValueError as error:
        raise SettingsError(
            f"this is no JSON ({error}); write it with: terraform show -json PLAN > plan.json"
        ) from error
    if not isinstance(plan, dict) or "planned_values" not in plan:
        raise SettingsError("this JSON is no Terraform plan; write it with: terraform show -json PLAN > plan.json")
    version = str(plan.get("format_version", ""))
    if version.partition(".")[0] != "1":
        raise SettingsError(f"a plan of format {version or 'unknown'} cannot be read; this version reads format 1")
    return plan


def resources(data: bytes) -> list[Resource]:
    """Of `terraform show -json PLAN`. Raises as `decoded` does."""
    return resources_of(decoded(data))


def resources_of(plan: dict[str, Any]) -> list[Resource]:
    """What there will be once the plan is carried out, modules inside modules too."""
    return list(_of_module(plan["planned_values"].get("root_module", {})))


def _of_module(module: dict[str, Any]) -> Iterator[Resource]:
    for found in module.get("resources", ()):
        if found.get("mode") == "managed":
            yield Resource(found["address"], found["type"], found.get("values", {}))
    for child in module.get("child_modules", ()):
        yield from _of_module(child)


def _planned(directory: Path) -> bytes:
    if not any(directory.glob("*.tf")):
        raise SettingsError(f"{directory} has no *.tf files; name an environment, such as infra/terraform/envs/dev")
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "plan"
        _terraform(directory, "plan", "-input=false", "-lock=false", "-refresh=false", f"-out={saved}")
        return _terraform(directory, "show", "-json", str(saved))


def _terraform(directory: Path, *arguments: str) -> bytes:
    program = shutil.which("terraform")
    if program is None:
        raise SettingsError(
            "terraform is not installed; plan elsewhere and name the plan's JSON: terraform show -json PLAN"
        )
    command = [program, f"-chdir={directory}", *_uncolored(arguments)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PLAN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SettingsError(f"terraform {arguments[0]} did not end within {PLAN_TIMEOUT_S} s in {directory}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise SettingsError(f"terraform {arguments[0]} failed in {directory}:\n{said}")
    return done.stdout


def _uncolored(arguments: Sequence[str]) -> tuple[str, ...]:
    return (arguments[0], *(() if arguments[0] == "show" else ("-no-color",)), *arguments[1:])

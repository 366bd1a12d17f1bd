"""What a Terraform stack says about itself, as the environment of a command: where the store is, which queues and roles there are.

`steelyard --from-terraform DIR ...` asks Terraform in that folder; a file is what `terraform output -json` printed somewhere else.
The stack's output `environment` (infra/terraform/outputs.tf) holds variables; nothing else of it is read.
"""

import re
import subprocess
from pathlib import Path

import msgspec

from gateway.errors import SettingsError

OUTPUT = "environment"
WAIT_S = 60.0
"""A remote state is read in seconds; longer means that Terraform waits for somebody to log in."""

_ALLOWED = re.compile(r"STEELYARD_[A-Z0-9_]+|AWS_(REGION|DEFAULT_REGION|ENDPOINT_URL)")
"""No other variable is anything that a stack has to say to this machine."""


class _Output(msgspec.Struct, frozen=True):
    """One output as `terraform output -json` prints it; `value` is decoded once it is known which one is meant."""

    value: msgspec.Raw


def environment(path: Path) -> dict[str, str]:
    """The variables to set. Raises `SettingsError` with a sentence for whatever is missing."""
    try:
        outputs = msgspec.json.decode(_printed(path), type=dict[str, _Output])
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{path} is not what `terraform output -json` prints: {error}") from error
    if not outputs:
        raise SettingsError(
            f"{path} has no outputs: nothing is applied there (terraform apply), or another workspace is selected"
        )
    if OUTPUT not in outputs:
        raise SettingsError(
            f"{path} has no output '{OUTPUT}', as roots of infra/terraform have; there are: {', '.join(sorted(outputs))}"
        )
    try:
        found = msgspec.json.decode(outputs[OUTPUT].value, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{path}: output '{OUTPUT}' is no map of texts: {error}") from error
    for name in found:
        if not _ALLOWED.fullmatch(name):
            raise SettingsError(f"{path}: output '{OUTPUT}' sets {name}, which is not for a stack to set")
    return found


def _printed(path: Path) -> bytes:
    if path.is_file():
        try:
            return path.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    if not path.is_dir():
        raise SettingsError(f"--from-terraform {path}: there is no such folder or file")
    try:
        done = subprocess.run(
            ["terraform", "output", "-json"], cwd=path, capture_output=True, check=False, timeout=WAIT_S
        )
    except FileNotFoundError as error:
        raise SettingsError(
            "there is no terraform on the PATH; run `terraform output -json > stack.json` where there is one, and pass the file"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SettingsError(
            f"terraform in {path} did not answer within {WAIT_S:.0f} s; does it ask for a login?"
        ) from error
    if done.returncode:
        raise SettingsError(f"terraform in {path} says: {_sentence(done.stderr)}")
    return done.stdout


def _sentence(stderr: bytes) -> str:
    """Terraform's error without its frame and colours, in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[│╷╵]", "", stderr.decode(errors="replace"))
    return " ".join(plain.split())[:500] or "nothing"

"""Where a peer's Python is: a virtual environment of its own under `.bench/`, made from its pins when missing or outdated."""

import subprocess
import sys
from pathlib import Path

from tests.bench.peers.processes import ROOT, StartFailed

PINS = Path(__file__).parent / "pins"  # each made with `pip freeze` after installing the peer, onnxruntime and numpy
ENVIRONMENTS = ROOT / ".bench"


def python(package: str) -> str:
    """Raises StartFailed when pip cannot install `package`."""
    pins, folder = (PINS / f"{package}.txt").read_bytes(), ENVIRONMENTS / package
    interpreter, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_bytes() != pins:
        print(f"installing {package} into {folder} ...", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = (str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
        _run(*pip, "install", "-r", str(PINS / f"{package}.txt"))
        stamp.write_bytes(pins)
    return str(interpreter)


def version(package: str) -> str:
    """The pinned one."""
    pins = dict(line.split("==", 1) for line in (PINS / f"{package}.txt").read_text().split() if "==" in line)
    return pins[package]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [f"{command} failed"]
        raise StartFailed(f"not installed: {errors[0]}")

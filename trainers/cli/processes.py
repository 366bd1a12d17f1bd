"""One command, several processes: starts torchrun on this machine, so that each GPU has a process, and ends as the first one ended.

torchrun itself exits with 1 whatever its processes exited with; the first of them leaves its code in a file.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from trainers.spec.jobspec import GRACE_S_MAX

EXIT_FILE = "STEELYARD_EXIT_FILE"
PATIENCE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S_MAX)}
"""torchrun kills 30 s after it passed SIGTERM on, in the midst of a save that the platform would have waited for."""


def is_one_of_many() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def run(processes: int, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """`python -m trainers` with these in so many processes; returns what the first one exited with."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--max-restarts=0"]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "exit"
        command = [sys.executable, *launcher, "-m", "trainers", *arguments]
        child = subprocess.Popen(command, env={**PATIENCE, **os.environ, **environment, EXIT_FILE: str(told)})  # noqa: S603  # this very program
        with _forwarded(child):
            code = child.wait()
        return int(told.read_text()) if told.exists() else code


@contextlib.contextmanager
def code_told() -> Iterator[None]:
    """Leave the exit code of this block where `run` looks for it; only the first process does."""
    path = os.environ.get(EXIT_FILE)
    code = 0
    try:
        yield
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        raise
    except click.ClickException as error:
        code = error.exit_code
        if path and not code:
            error.show()
            sys.exit(1)  # for torchrun: the other processes shall end too
        raise
    except BaseException:
        code = 1
        raise
    finally:
        if path and os.environ.get("RANK") == "0":
            Path(path).write_text(str(code))


@contextlib.contextmanager
def _forwarded(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """SIGTERM goes to torchrun, which passes it on; Ctrl-C reaches the whole group of processes by itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

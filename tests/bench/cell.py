"""One cell of a bench's table: a server on the first core under load from the last, with so many connections, for so many seconds.

How often and how long is the caller's environment: BENCH_ROUNDS, BENCH_SECONDS.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

CORES = sorted(os.sched_getaffinity(0))
CONNECTIONS = (1, 16, 64)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))


class Figures(msgspec.Struct, frozen=True):
    """Of one server at one number of connections.

    `load_busy` is the share of its core that the load generator used; `answers` includes those of the warm-up.
    """

    rps: float
    p50_us: float
    p99_us: float
    load_busy: float
    answers: int


class LoadFailed(RuntimeError):
    """The server went away, or answered something else than 200."""


def cpu_us(pid: int) -> float:
    """CPU time that a process has used, in microseconds: what survives a busy machine. Exact to a clock tick of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")  # utime and stime


def measure(port: int, path: str, body: str | bytes, connections: int, **headers: str) -> Figures:
    """Raises LoadFailed. Keyword names become header names."""
    sent = base64.b64encode(body.encode() if isinstance(body, str) else body).decode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    plan = json.dumps(
        {"port": port, "path": path, "body": sent, "headers": lines, "connections": connections, "seconds": SECONDS}
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=plan,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {CORES[-1]}),
    )
    if done.returncode:
        raise LoadFailed(done.stderr)
    return msgspec.json.decode(done.stdout, type=Figures)

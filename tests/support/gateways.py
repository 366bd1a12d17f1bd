"""A real gateway process over a real store, on a free port, with its log kept for the failure message."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

READY_S = 100
"""To start: 2 s on an idle machine, and twenty times that have been seen on a busy one."""

ANSWER_S = 60
"""For what must come: a limit, not a measurement."""

POLL_S = 0.02


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        message: str = self.json["error"]
        return message


class Gateway:
    """A running gateway."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def request(self, method: str, path: str, body: bytes | object | None = None, **headers: str) -> Answer:
        """One request on a connection of its own. Keyword names become header names."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        with contextlib.closing(connection):
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: bytes | object) -> Answer:
        return self.request("POST", path, body)

    def terminate(self) -> int:
        """SIGTERM, then the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=ANSWER_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def until(is_so: Callable[[], bool], otherwise: str = "it never happened") -> None:
    """Look until it is so: what another process does has no event to wait for."""
    deadline = time.monotonic() + ANSWER_S
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(POLL_S)


@contextlib.contextmanager
def running(
    store: Path | str, folder: Path, *arguments: str, prefix: Sequence[str] = (), **environment: str
) -> Iterator[Gateway]:
    """A gateway that is ready. Its port is 0 and read from its log, so that tests never race for one.

    `prefix` is a command that starts it, such as `taskset`.
    """
    log = folder / f"gateway-{time.monotonic_ns()}.log"
    env = os.environ | {"STEELYARD_REPOSITORY__CACHE_DIR": str(folder / "cache")} | environment
    command = [*prefix, sys.executable, "-m", "gateway", "serve", "--store", str(store), "--port", "0", *arguments]
    with started(command, log, env) as gateway:
        yield gateway


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, environ: Mapping[str, str]) -> Iterator[Gateway]:
    """What this command starts, once it listens."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environ) as process:
        try:
            yield Gateway(process, _await_port(process, log), log)
        finally:
            if process.poll() is None:
                process.kill()


def _await_port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        if text.endswith("\n") and (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", text)):
            return int(found[1])
        time.sleep(POLL_S)
    raise AssertionError(f"the gateway did not start:\n{log.read_text()}")

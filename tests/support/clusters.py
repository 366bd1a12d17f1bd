"""A real `steelyard cluster` as a process of its own, and callers who keep asking it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from tests.support.gateways import Answer, Gateway

READY_S = 120
"""For everything, on a machine that does other things too."""


class Cluster(Gateway):
    """Asked as a gateway is. `folder` is the cluster's own."""

    folder: Path
    patience_s = READY_S

    def pids(self) -> dict[str, int]:
        """Of the gateways that are ready, by name."""
        targets = json.loads((self.folder / "gateways.json").read_text())
        return {target["labels"]["gateway"]: int(target["labels"]["pid"]) for target in targets}

    def members(self) -> dict[str, Gateway]:
        """The gateways themselves."""
        targets = json.loads((self.folder / "gateways.json").read_text())
        return {
            target["labels"]["gateway"]: Gateway(self.process, int(target["targets"][0].rpartition(":")[2]), self.log)
            for target in targets
        }

    def await_said(self, pattern: str) -> re.Match[str]:
        """What it printed, as soon as it has."""
        found: list[re.Match[str]] = []

        def is_said() -> bool:
            found.extend(re.finditer(pattern, self.log.read_text()))
            return bool(found)

        self.await_(is_said)
        return found[0]

    def await_(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.patience_s
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=90)


@contextlib.contextmanager
def running(folder: Path, *arguments: str, patience_s: float = READY_S, **environment: str) -> Iterator[Cluster]:
    """A cluster that answers, on a free port. `folder` is where its own folder is made."""
    own = folder / "cluster"
    log = folder / f"cluster-{time.monotonic_ns()}.log"
    env = os.environ | {"STEELYARD_REPOSITORY__CACHE_DIR": str(folder / "cache")} | environment
    command = [sys.executable, "-m", "gateway", "cluster", "--folder", str(own), "--port", "0", *arguments]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        cluster = Cluster(process, 0, log)
        cluster.folder = own
        cluster.patience_s = patience_s
        try:
            cluster.port = int(cluster.await_said(r"http://127\.0\.0\.1:(\d+) answers for all gateways")[1])
            yield cluster
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=60)
            process.kill()


class Callers:
    """Threads that call models at random, until told to stop, and remember every answer, and how long each call took."""

    def __init__(self, gateway: Gateway, names: Sequence[str], body: bytes, count: int) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self.took_s: list[float] = []
        self._gateway, self._names, self._body = gateway, names, body
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(count)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        random = Random(number)
        while not self._over.is_set():
            begun = time.perf_counter()
            try:
                answer = self._gateway.post(f"/v1/predict/{random.choice(self._names)}", self._body)
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                continue
            self.took_s.append(time.perf_counter() - begun)
            self.answers.append(answer)
            if answer.status != 200:
                self.failures.append(f"{answer.status} {answer.body[:200]!r}")

    def await_more(self, count: int) -> None:
        """So many more answers."""
        until, deadline = len(self.answers) + count, time.monotonic() + READY_S
        while len(self.answers) < until:
            assert time.monotonic() < deadline, f"{len(self.answers)} of {until}; {self.failures[:3]}"
            time.sleep(0.01)

    @property
    def ids(self) -> list[str]:
        return [answer.headers["steelyard-request-id"] for answer in self.answers if answer.status == 200]

    def instances(self, since: int = 0) -> Counter[str]:
        """How many answers each gateway gave, by what its request ids begin with."""
        return Counter(answer.headers["steelyard-request-id"].partition("-")[0] for answer in self.answers[since:])

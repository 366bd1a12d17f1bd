"""A real Envoy with the shipped file before gateways that a test started, on a free port."""

import contextlib
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.cluster import envoyfile, programs
from gateway.cluster.envoyfile import Address
from tests.support.gateways import ANSWER_S, Gateway

READY_S = 100  # as a gateway; 1 s on an idle machine


class Edge(Gateway):
    """Asked as a gateway is. `folder` holds the file of endpoints that it follows."""

    folder: Path
    admin: str

    def follow(self, gateways: Sequence[Gateway]) -> None:
        """Send to these from now on; returns when Envoy has found all of them ready, and no others."""
        wanted = {f"127.0.0.1:{gateway.port}" for gateway in gateways}
        envoyfile.write_endpoints(self.folder, [envoyfile.parsed(text) for text in wanted])
        self.await_healthy(wanted)

    def await_healthy(self, wanted: set[str]) -> None:
        self.await_(lambda: self.healthy() == wanted)

    def await_(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def healthy(self) -> set[str]:
        lines = [line.split("::") for line in self.ask("/clusters").splitlines() if "::health_flags::" in line]
        found = [
            {line[1] for line in lines if line[0] == name and line[3] == "healthy"} for name in ("by_model", "any")
        ]
        return found[0] & found[1]

    def counter(self, name: str) -> int:
        """A counter or gauge of Envoy's by its whole name; 0 when it is not there yet."""
        found = [line for line in self.ask(f"/stats?filter=^{name}$").splitlines() if line.startswith(f"{name}: ")]
        return int(found[0].rpartition(" ")[2]) if found else 0

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=ANSWER_S) as answer:
            text: str = answer.read().decode()
        return text


@contextlib.contextmanager
def running(folder: Path, gateways: Sequence[Gateway], *, text: str | None = None) -> Iterator[Edge]:
    """An Envoy that sends requests to these gateways, with the shipped file or this one."""
    folder = folder / f"edge-{time.monotonic_ns()}"
    folder.mkdir()
    anywhere = Address("127.0.0.1", 0)
    file = envoyfile.configured(text or envoyfile.shipped(), listen=anywhere, admin=anywhere)
    (folder / "gateway.yaml").write_text(file)
    envoyfile.write_endpoints(folder, [Address("127.0.0.1", gateway.port) for gateway in gateways])
    log = folder / "log"
    command = [
        programs.find("envoy"),
        "-c",
        "gateway.yaml",
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
    ]
    command += ["--admin-address-path", "admin"]
    with log.open("wb") as output, subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as process:
        try:
            edge = Edge(process, 0, log)
            edge.folder = folder
            edge.admin = _await_admin(edge)
            edge.port = int(edge.ask("/listeners").rpartition(":")[2])
            edge.await_healthy({f"127.0.0.1:{gateway.port}" for gateway in gateways})
            yield edge
        finally:
            process.kill()


def _await_admin(edge: Edge) -> str:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and edge.process.poll() is None:
        with contextlib.suppress(OSError):
            edge.admin = (edge.folder / "admin").read_text()
            if edge.ask("/ready").strip() == "LIVE":
                return edge.admin
        time.sleep(0.02)
    raise AssertionError(f"Envoy did not start:\n{edge.log.read_text()}")

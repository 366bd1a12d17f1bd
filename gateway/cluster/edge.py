"""The Envoy of a cluster: started with the shipped file, told which gateways there are, drained and stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from gateway.cluster import envoyfile, processes, programs
from gateway.cluster.asking import ask
from gateway.cluster.envoyfile import Address
from gateway.cluster.processes import Child
from gateway.errors import GatewayError, SettingsError

READY_S = 20.0
"""Envoy is ready in 0.1 s on an idle machine."""

NOTICED_S = 10.0
"""Within which Envoy has followed the file of endpoints and asked a new gateway for its readiness: each takes a second at most."""

DRAIN_S = 5.0
"""How long requests in flight may take once no connection is accepted any more."""

STOP_S = 5.0
LOOK_S = 0.05


class Edge:
    """`listen` is where callers come in, `admin` where Envoy tells about itself."""

    def __init__(self, child: Child, folder: Path, listen: Address, admin: Address) -> None:
        self.child = child
        self.listen = listen
        self.admin = admin
        self._folder = folder

    def follow(self, gateways: Collection[Address]) -> None:
        """Send requests to these, as soon as each says that it is ready."""
        envoyfile.write_endpoints(self._folder, sorted(gateways))

    async def settled(self, *, present: Collection[Address] = (), absent: Collection[Address] = ()) -> bool:
        """Wait until requests go to all of `present` and none of `absent`; False when that does not happen in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOTICED_S):
                while True:
                    with contextlib.suppress(OSError):  # whoever watches Envoy says so when it is gone
                        known = await self._known()
                        healthy = {address for address, is_healthy in known.items() if is_healthy}
                        if healthy.issuperset(present) and known.keys().isdisjoint(absent):
                            return True
                    await asyncio.sleep(LOOK_S)
        return False

    async def _known(self) -> dict[Address, bool]:
        """The gateways that Envoy knows, and whether it sends requests to them, by both ways."""
        _, text = await ask(self.admin, "/clusters")
        known: dict[Address, bool] = {}
        for line in text.splitlines():
            cluster, _, rest = line.partition("::")
            if cluster in {"by_model", "any"} and "::health_flags::" in rest:
                where, _, flags = rest.partition("::health_flags::")
                address = envoyfile.parsed(where)
                known[address] = known.get(address, True) and flags == "healthy"
        return known

    async def drain(self) -> None:
        """Accept no more connections, and wait for the answers that are under way."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await ask(self.admin, "/drain_listeners", method="POST")
                while await self._in_flight():  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(LOOK_S)

    async def _in_flight(self) -> bool:
        _, text = await ask(self.admin, "/stats?filter=http.edge.downstream_rq_active")
        return not text.endswith(": 0\n")


@contextlib.asynccontextmanager
async def running(text: str, folder: Path, listen: Address) -> AsyncIterator[Edge]:
    """An Envoy that accepts callers at `listen` (port 0: any), before no gateways yet. Raises `GatewayError`."""
    admin_file = _prepared(text, folder, listen)
    # One thread: this machine is shared with the gateways. No hot restart: two clusters may run side by side.
    command = [programs.find("envoy"), "-c", "gateway.yaml", "--concurrency", "1", "--disable-hot-restart"]
    command += ["-l", "warning", "--admin-address-path", admin_file.name]
    child = await processes.start("Envoy", command, folder / "envoy.log", folder=folder)
    try:
        admin = await _admin(child, admin_file)
        if not listen.port:
            listen = envoyfile.parsed((await ask(admin, "/listeners"))[1].strip().partition("::")[2])
        yield Edge(child, folder, listen, admin)
    finally:
        await child.stop(STOP_S)


def _prepared(text: str, folder: Path, listen: Address) -> Path:
    """Writes what Envoy reads; returns the file in which it will say where its own pages are."""
    folder.mkdir(parents=True, exist_ok=True)
    admin_file = folder / "admin"
    admin_file.unlink(missing_ok=True)
    configured = envoyfile.configured(text, listen=listen, admin=Address("127.0.0.1", 0))
    (folder / "gateway.yaml").write_text(configured)
    envoyfile.write_endpoints(folder, ())
    return admin_file


async def _admin(child: Child, file: Path) -> Address:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while child.is_running:
                admin = _written(file)
                with contextlib.suppress(OSError):
                    if admin and (await ask(admin, "/ready"))[0] == 200:
                        return admin
                await asyncio.sleep(LOOK_S)
    raise GatewayError(f"Envoy did not become ready: {child.last_words} (its log: {child.log})")


def _written(file: Path) -> Address | None:
    try:
        return envoyfile.parsed(file.read_text())
    except (OSError, SettingsError):  # not there, or half of it
        return None

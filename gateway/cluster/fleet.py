"""The gateways of a cluster: as many as wanted, each a `steelyard serve` of its own; one that dies is named and replaced.

Whoever has a place in `members` is ready and in Envoy's file of endpoints. A gateway that goes leaves that file first, so that it
gets no request after its SIGTERM.
"""

import asyncio
import contextlib
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gateway.cluster import processes
from gateway.cluster.edge import Edge
from gateway.cluster.envoyfile import Address
from gateway.cluster.processes import Child
from gateway.errors import GatewayError

READY_S = 60.0
"""A start takes about a second; preloading and a busy machine make it longer."""

STOP_S = 40.0
"""More than `server.linger_s`, `server.drain_s`, twice `runtime.stop_s` and the ledger's 10 s together."""

STARTS_FAILED_MAX = 3
"""A gateway that never becomes ready would be started for ever."""

PAUSE_S = 1.0
"""Before a dead gateway's replacement: one that dies at once must not keep the machine busy with starting."""

LOOK_S = 0.02

DEFAULTS = {
    "STEELYARD_ACCOUNTING__VCPUS": "1",
    "STEELYARD_ACCOUNTING__MEMORY_GB": "2",
    "STEELYARD_SERVER__LINGER_S": "2",
}
"""Unless the environment says otherwise: billed as a common task, not as the whole machine; and Envoy, which asks each second, sees
that a gateway drains before it closes its listener."""


class Member(msgspec.Struct, frozen=True):
    """A gateway that is ready. `start_s` is how long it took to become so."""

    name: str
    child: Child
    address: Address
    start_s: float


class Fleet:
    """`say` tells people what happens. `standby` is where requests go while there is no gateway (None: nowhere)."""

    def __init__(
        self,
        store: str,
        folder: Path,
        edge: Edge,
        say: Callable[[str], None],
        *,
        environment: Mapping[str, str],
        standby: Address | None = None,
    ) -> None:
        self.members: list[Member] = []
        self.wanted = 0
        self.standby = standby
        self.say = say
        self.full = asyncio.Event()
        """Set while there are as many as wanted."""
        self._ready = asyncio.Event()
        self._store = store
        self._folder = folder
        self._edge = edge
        self._environment = DEFAULTS | dict(environment)
        self._changed = asyncio.Event()
        self._started = 0
        self._failed = 0
        self._children: list[Child] = []
        self._watches: set[asyncio.Task[None]] = set()

    def want(self, count: int) -> None:
        """So many gateways, from now on."""
        if count != self.wanted:
            self.wanted = count
            self._changed.set()

    async def woken(self) -> Address:
        """A gateway that is ready; one is started when there is none."""
        if not self.members:
            self.want(max(1, self.wanted))
            await self._ready.wait()
        return random.choice(self.members).address  # noqa: S311 - any will do

    async def keep(self) -> None:
        """Start and stop gateways until there are as many as wanted, again and again; cancelled, it leaves them running.

        Raises `GatewayError` when gateways do not become ready.
        """
        self._publish()
        while True:
            self._changed.clear()
            missing = self.wanted - len(self.members)
            if missing > 0:
                await self._grow(missing)
            elif missing < 0:
                await self._retire(self.members[-1])
            else:
                self.full.set()
                await self._changed.wait()
                self.full.clear()

    async def aclose(self) -> None:
        """Stop all of them at once; the caller has seen to it that no requests come."""
        for watch in self._watches:
            watch.cancel()
        self.members = []
        await asyncio.gather(*(child.stop(STOP_S) for child in self._children if child.is_running))

    async def _grow(self, count: int) -> None:
        begun = [asyncio.create_task(self._start()) for _ in range(count)]
        try:
            for starting in asyncio.as_completed(begun):
                if (member := await starting) is not None:
                    self._enter(member)
        finally:
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    async def _start(self) -> Member | None:
        """A gateway that is ready, or None when it was not to be. Its port is free for sure: the system chooses it."""
        self._started += 1
        name = f"gateway-{self._started}"
        began_s = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "gateway",
            "serve",
            "--store",
            self._store,
            "--host",
            "127.0.0.1",
            "--port",
            "0",
        ]
        child = await processes.start(name, command, self._folder / f"{name}.log", environment=self._environment)
        self._children = [other for other in self._children if other.is_running] + [child]
        try:
            address = await _listening(child)
        except asyncio.CancelledError:
            child.kill()
            raise
        if address is None:
            await self._give_up(child)
            return None
        self._failed = 0
        return Member(name, child, address, time.monotonic() - began_s)

    async def _give_up(self, child: Child) -> None:
        """Raises `GatewayError` when it is not worth trying again."""
        how = child.ending if not child.is_running else f"took more than {READY_S:g} s"
        child.kill()
        self._failed += 1
        sentence = f"{child.name} {how} before it was ready: {child.last_words} (its log: {child.log})"
        if self._failed >= STARTS_FAILED_MAX or not self.members:
            raise GatewayError(sentence)
        self.say(sentence)
        await asyncio.sleep(PAUSE_S)

    def _enter(self, member: Member) -> None:
        self.members.append(member)
        self._publish()
        self.say(f"{member.name} (pid {member.child.pid}) is ready on {member.address} after {member.start_s:.1f} s")
        watch = asyncio.create_task(self._watch(member))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, member: Member) -> None:
        """Until it has ended; one that was not told to is missed."""
        await member.child.wait()
        if member not in self.members:
            return
        self.members.remove(member)
        self._publish()
        self.say(
            f"{member.name} (pid {member.child.pid}) {member.child.ending}; another takes its place. Its log: {member.child.log}"
        )
        await asyncio.sleep(PAUSE_S)
        self._changed.set()

    async def _retire(self, member: Member) -> None:
        self.members.remove(member)
        self._publish()
        present = [other.address for other in self.members] or ([self.standby] if self.standby else [])
        await self._edge.settled(present=present, absent=[member.address])
        await member.child.stop(STOP_S)
        self.say(f"{member.name} was stopped")

    def _publish(self) -> None:
        """To Envoy, and to whoever scrapes or wants to know a pid: the file is of the kind that Prometheus's file_sd reads."""
        addresses = [member.address for member in self.members]
        self._edge.follow(addresses or ([self.standby] if self.standby else []))
        targets = [
            {"targets": [str(member.address)], "labels": {"gateway": member.name, "pid": str(member.child.pid)}}
            for member in self.members
        ]
        file = self._folder / "gateways.json"
        new = file.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(targets)))
        new.replace(file)
        if self.members:
            self._ready.set()
        else:
            self._ready.clear()


async def _listening(child: Child) -> Address | None:
    """Where it listens, as its log says once it is ready; None when it ended instead, or took too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while child.is_running:
                text = child.log.read_text(errors="replace")
                if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)\b", text.rpartition("\n")[0]):
                    return Address("127.0.0.1", int(found[1]))
                await asyncio.sleep(LOOK_S)
    return None

"""A cluster from its first program to its last: object store, Envoy, gateways, and who looks after them.

`gateway.cli.cluster` calls `run`. Whatever can be refused is refused by `checked`, before anything starts. Programs stop in the
reverse order: callers first, the object store last.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any  # a coroutine's send and yield types, which nobody uses

import msgspec
from rich.console import Console

from gateway.cluster import activator, edge, envoyfile, objects, programs
from gateway.cluster.activator import Activator
from gateway.cluster.autoscaling import Autoscaler, Bounds
from gateway.cluster.envoyfile import Address
from gateway.cluster.fleet import Fleet
from gateway.cluster.processes import Child
from gateway.cluster.watching import Watch
from gateway.errors import GatewayError


class Plan(msgspec.Struct, frozen=True):
    """What to run. An empty `store` is a SeaweedFS of our own; without `bounds` there are always `gateways` of them."""

    folder: Path
    store: str
    listen: Address
    gateways: int
    bounds: Bounds | None
    idle_s: float
    envoy_file: str
    envoy_name: str


class Running(msgspec.Struct, frozen=True):
    """What runs, for who tells about it. `environment` is a file that other terminals read to reach the store."""

    store: str
    callers: Address
    admin: Address
    targets: Path
    environment: Path | None


Fill = Callable[[str], Awaitable[None]]
Tell = Callable[[Running], Awaitable[None]]


async def run(plan: Plan, console: Console, *, fill: Fill, tell: Tell) -> None:
    """Until SIGINT or SIGTERM, then drained and stopped. Raises `GatewayError` when something cannot start, or dies.

    `fill` is given the store's URL once it takes writes, and `tell` what runs once callers are answered.
    """
    kept = await asyncio.to_thread(checked, plan)
    stop = asyncio.Event()
    with _alone(plan.folder), _signals(stop):
        await _until(stop, _serve(plan, kept, console, fill, tell))
    console.print("stopped")


def checked(plan: Plan) -> objects.Kept | None:
    """Everything that can be wrong is, now: programs, the Envoy file, ports. Raises `SettingsError`, for a port `GatewayError`."""
    programs.find("envoy")
    if not plan.store:
        programs.find("weed")
    configured = envoyfile.configured(plan.envoy_file, listen=plan.listen, admin=Address("127.0.0.1", 0))
    envoyfile.validate(configured, plan.envoy_name)
    if plan.listen.port and not objects.is_free(plan.listen.port, plan.listen.host):
        raise GatewayError(f"cannot listen on {plan.listen}: another program does; stop it, or choose with --port")
    return None if plan.store else objects.kept(plan.folder)


async def _serve(plan: Plan, kept: objects.Kept | None, console: Console, fill: Fill, tell: Tell) -> None:
    async with contextlib.AsyncExitStack() as stack:
        parts: list[Child] = []
        if kept is not None:
            console.print(f"starting SeaweedFS in {plan.folder}", highlight=False)
            parts.append(await stack.enter_async_context(objects.running(plan.folder, kept)))
            environment = kept.environment()
            os.environ.update(environment)  # for `fill` and `tell`, and the gateways that we start
            lines = [f"export {name}='{value}'\n" for name, value in environment.items()]
            objects.write_private(plan.folder / "environment", "".join(lines).encode())
        store = plan.store or objects.URL
        await fill(store)
        front = await stack.enter_async_context(edge.running(plan.envoy_file, plan.folder / "envoy", plan.listen))
        parts.append(front.child)
        holding = await stack.enter_async_context(activator.running(Activator()))
        may_sleep = plan.bounds is not None and not plan.bounds.fewest
        standby = holding.address if may_sleep else None
        fleet = Fleet(store, plan.folder, front, console.print, environment=os.environ, standby=standby)
        stack.push_async_callback(fleet.aclose)
        stack.push_async_callback(front.drain)
        holding.gateway = fleet.woken
        fleet.want(plan.bounds.fewest if plan.bounds else plan.gateways)
        scaler = Autoscaler(plan.bounds, asyncio.get_running_loop().time(), idle_s=plan.idle_s) if plan.bounds else None
        watch = stack.enter_context(Watch(fleet, holding, scaler, console))
        await _together(
            fleet.keep(),
            *(_missed(part) for part in parts),
            _look_after(fleet, front, watch, lambda: tell(_running(plan, store, front, kept))),
        )


async def _look_after(fleet: Fleet, front: edge.Edge, watch: Watch, told: Callable[[], Awaitable[None]]) -> None:
    await fleet.full.wait()
    standby = [fleet.standby] if fleet.standby and not fleet.members else []
    await front.settled(present=[member.address for member in fleet.members] or standby)
    await told()
    await watch.keep()


def _running(plan: Plan, store: str, front: edge.Edge, kept: objects.Kept | None) -> Running:
    environment = plan.folder / "environment" if kept else None
    return Running(store, front.listen, front.admin, plan.folder / "gateways.json", environment)


async def _missed(part: Child) -> None:
    """Nothing takes the place of these."""
    await part.wait()
    raise GatewayError(f"{part.name} (pid {part.pid}) {part.ending}: {part.last_words} (its log: {part.log})")


async def _together(*jobs: Coroutine[Any, Any, None]) -> None:
    """All of them until one fails, whose error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as failed:
        ours = [error for error in failed.exceptions if isinstance(error, GatewayError)]
        raise (ours or failed.exceptions)[0] from failed


async def _until(stop: asyncio.Event, serving: Coroutine[Any, Any, None]) -> None:
    """A stop cancels whatever is under way, also a start; each part then stops what it has started."""
    task = asyncio.create_task(serving)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two clusters in one folder would write over each other's files. The lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GatewayError(f"another cluster runs in {folder}; stop it, or choose with --folder") from None
        yield


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

"""Runs the gateway: binds, opens the service, serves, drains on SIGTERM or SIGINT, exits 0."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext

import msgspec
import uvloop

from gateway import bootstrap, lambdaruntime
from gateway.errors import GatewayError
from gateway.http.app import application
from gateway.http.listener import Listener
from gateway.http.predictions import Predictions, request_ids
from gateway.settings import Settings
from gateway.telemetry import logs, sources
from gateway.telemetry.definitions import CONNECTIONS
from gateway.telemetry.startup import Startup

logger = logging.getLogger(__name__)


def serve(settings: Settings, startup: Startup) -> int:
    """Serve until a signal; returns the process's exit code. Raises `GatewayError` for what stops it from starting."""
    logs.configure(settings.log)
    with _bind(settings.server.host, settings.server.port) as listening:
        asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_serve(settings, startup, listening))
    return 0


async def _serve(settings: Settings, startup: Startup, listening: socket.socket) -> None:
    with signals() as stop:
        try:
            async with bootstrap.opened(settings, startup) as (service, drain):
                app = application(
                    service, body_bytes_max=settings.server.body_bytes_max, base_path=settings.server.base_path
                )
                startup.mark_app()
                predictions = Predictions(
                    service.dataplane,
                    service.access,
                    request_ids(service.instance),
                    service.measures,
                    service.request_log,
                    compression=settings.compression,
                    sagemaker=settings.sagemaker,
                )
                stopped = asyncio.Event()

                def stopping() -> None:
                    drain()
                    stopped.set()

                stop.then(stopping)
                # Litestar's types are narrower than ASGI's dictionaries.
                listener = Listener(app, predictions, settings.server, service.visits)  # type: ignore[arg-type]
                service.page.add(sources.counters(lambda: {CONNECTIONS: len(listener.connections)}))
                service.saturation.watch(
                    "connections", lambda: len(listener.connections) / settings.server.connections_max
                )
                # What the start has made stays for ever: without it a full collection takes 0.1 ms instead of 20 to 35.
                gc.freeze()
                startup.mark_ready()
                async with service.saturation, _invocations(settings, listener, listening, stop.ask):
                    await listener.serve(listening, stopped)
        except asyncio.CancelledError:
            if not stop.is_asked:
                raise
            logger.info("stopped before it was ready")


def _invocations(
    settings: Settings, listener: Listener, listening: socket.socket, stop: Callable[[], None]
) -> AbstractAsyncContextManager[object]:
    """Lambda calls no server: there the gateway asks for what it is to answer. Everywhere else nothing happens here."""
    address = os.environ.get(lambdaruntime.RUNTIME_API)
    if address is None:
        return nullcontext()
    from gateway.lambdaruntime.api import RuntimeApi  # noqa: PLC0415 - nobody else needs these
    from gateway.lambdaruntime.serving import Invocations  # noqa: PLC0415
    from gateway.lambdaruntime.visit import Visit  # noqa: PLC0415

    visit: Visit | None = None
    if visits := listener.visits:
        visit = Visit(visits.begin, visits.end)
        listener.visits = msgspec.structs.replace(visits, begin=visit.begin, end=visit.end)
    timeout_ms = round(settings.timeout_s * 1000)
    return Invocations(
        RuntimeApi(address), listening, listener.accepting, timeout_ms=timeout_ms, visit=visit, stop=stop
    )


class _Stop:
    """What a signal does at this stage of the process's life. Before serving it cancels the opening.

    Only the first does anything: what it begins ends in time, and another must not tear the ledger's close.
    """

    def __init__(self) -> None:
        self.is_asked = False
        opening = asyncio.current_task()
        assert opening is not None
        self._action: Callable[[], object] = opening.cancel

    def then(self, action: Callable[[], object]) -> None:
        self._action = action

    def ask(self) -> None:
        if not self.is_asked:
            self.is_asked = True
            self._action()


@contextmanager
def signals() -> Iterator[_Stop]:
    """SIGTERM and SIGINT ask the stop that this yields; made by the task that opens the service."""
    stop, loop = _Stop(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _bind(host: str, port: int) -> socket.socket:
    """Bound before anything else, so that a port in use is one line and exit 1."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise GatewayError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listening

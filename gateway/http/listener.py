"""Accepts connections, counts them, times them, drains them. `gateway.server` starts it, `Connection` reports to it."""

import asyncio
import contextlib
import logging
import socket

from gateway.http.asgi import Application
from gateway.http.connection import Connection
from gateway.http.options import HttpOptions
from gateway.http.predictions import Predictions
from gateway.http.service import Visits

logger = logging.getLogger(__name__)

SWEEP_S = 0.5  # how late an overdue connection may be noticed
BACKLOG = 2048  # connections the kernel keeps while the loop is busy; a burst of clients is not refused by it


class Listener:
    """One listening socket and its connections. All methods run on the event loop."""

    def __init__(
        self, app: Application, predictions: Predictions, options: HttpOptions, visits: Visits | None = None
    ) -> None:
        self.app = app
        self.predictions = predictions
        self.options = options
        self.visits = visits
        self.loop = asyncio.get_running_loop()
        self.now_s = 0.0  # of the sweeper's clock
        self.is_draining = False
        self.connections: set[Connection] = set()
        self.accepting = asyncio.Event()  # set once clients can connect
        self._all_gone = asyncio.Event()

    async def serve(self, listening: socket.socket, stopped: asyncio.Event) -> None:
        """Accept until `stopped` is set, then drain. Returns when no connection is left."""
        server = await self.loop.create_server(lambda: Connection(self), sock=listening, backlog=BACKLOG)
        host, port = listening.getsockname()[:2]
        logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        self.accepting.set()
        sweeper = self.loop.create_task(self._sweep())
        try:
            await stopped.wait()
            await asyncio.sleep(self.options.linger_s)
            server.close()
            await self._drain()
        finally:
            sweeper.cancel()

    def admit(self, connection: Connection) -> bool:
        """Count it in; False when there are too many."""
        self.connections.add(connection)
        return len(self.connections) <= self.options.connections_max

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._all_gone.set()

    async def _drain(self) -> None:
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(self.options.drain_s):
                await self._empty()
        except TimeoutError:
            logger.warning("%d connections were cut off after drain_s", len(self.connections))
            for connection in list(self.connections):
                connection.abandon()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._empty()

    async def _empty(self) -> None:
        while self.connections:
            self._all_gone.clear()
            await self._all_gone.wait()

    async def _sweep(self) -> None:
        """One timer for all connections: a timer for each request would cost it more than a microsecond.

        Its clock counts its own turns: a loop that stood still is on no client's account, and who begins between two turns is not
        judged by time that passed before.
        """
        while True:
            await asyncio.sleep(SWEEP_S)
            self.now_s += SWEEP_S
            for connection in [each for each in self.connections if each.due_s < self.now_s]:
                connection.overdue()

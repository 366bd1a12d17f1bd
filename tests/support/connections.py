"""A real `Connection` over real `Predictions` without sockets: a test feeds it bytes and reads what it wrote."""

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from gateway.dataplane import DataPlane
from gateway.http.connection import Connection
from gateway.http.options import HttpOptions
from gateway.http.predictions import Predictions
from gateway.runtime.admission import Admission
from gateway.telemetry.measures import Measures, TelemetryOptions
from gateway.telemetry.requestlog import RequestLog
from tests.support.accesskeys import Now
from tests.support.gates import Watched
from tests.support.memorystore import MemoryStore


class Wire:
    """Stands in for a transport."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.sent += b"".join(pieces)

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_extra_info(self, _: str) -> None:
        return None


class Line:
    """One client's connection."""

    def __init__(self, host: Any) -> None:  # Any: what `Connection` knows of its listener
        self.wire = Wire()
        self.connection = Connection(host)
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]  # as much of a transport as is used
        self.send = self.connection.data_received

    @property
    def sent(self) -> bytes:
        return self.wire.sent


def predictions(dataplane: DataPlane) -> Predictions:
    """For callers without keys, with no log."""
    access = Watched(MemoryStore(), Now(), options={"required": "never"}).gate
    return Predictions(
        dataplane, access, iter(map(str, range(10**9))), Measures(TelemetryOptions()), RequestLog("none")
    )


@contextlib.contextmanager
def lines(dataplane: DataPlane, admission: Admission, *, app: Any = None, **options: Any) -> Iterator[Any]:
    """A function that makes a `Line`; all are closed at the end."""
    made: list[Line] = []
    host = SimpleNamespace(
        visits=None,
        app=app,
        predictions=predictions(dataplane),
        options=HttpOptions(**options),
        loop=asyncio.get_running_loop(),
        now_s=0.0,
        is_draining=False,
        admit=lambda _: True,
        forget=lambda _: None,
    )

    def line() -> Line:
        made.append(Line(host))
        return made[-1]

    try:
        yield line
    finally:
        for one in made:
            one.connection.connection_lost(None)

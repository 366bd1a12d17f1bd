"""What the HTTP room needs of the process behind it; `gateway.bootstrap` opens one."""

from collections.abc import Awaitable, Callable

import msgspec

from gateway.access.gate import Gate
from gateway.dataplane import DataPlane
from gateway.reports.live import LivePage
from gateway.repository.residents import Repository
from gateway.runtime.model import LoadedModel
from gateway.telemetry.exposition import MetricsPage
from gateway.telemetry.measures import Measures
from gateway.telemetry.requestlog import RequestLog
from gateway.telemetry.saturation import Saturation


class Visits(msgspec.Struct, frozen=True):
    """For a platform that bills by requests: it is told of each, whatever it asks for. `begin` gives what `end` takes, with the id
    of a prediction's request. While `holds()`, an answer waits for `keep`.
    """

    begin: Callable[[], int]
    end: Callable[[int, str], None]
    holds: Callable[[], bool]
    keep: Callable[[], Awaitable[None]]


class Service(msgspec.Struct):
    """`instance` begins every request id and is new with every process. `ready` turns false once the process drains.

    `ready_wait_s`: how long asking for a model's readiness waits for its load. `load_wait_s`: how long asking for the load itself
    does.
    """

    dataplane: DataPlane
    repository: Repository[LoadedModel]
    access: Gate
    version: str
    instance: str
    measures: Measures
    request_log: RequestLog
    page: MetricsPage
    saturation: Saturation
    cost_page: LivePage
    visits: Visits | None = None
    ready: bool = True
    ready_wait_s: float = 2.0
    load_wait_s: float = 120.0

"""A log line with the few figures that autoscalers and alarms need, for platforms that read logs and scrape nobody.

CloudWatch makes metrics of it by a filter on the log (infra/terraform/modules/gateway/scaling.tf), without an agent beside the
gateway or a call from it. The figures are those of `/metrics`; `gateway.bootstrap` starts the writing.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from gateway.telemetry import definitions as d
from gateway.telemetry.exposition import Sample

logger = logging.getLogger(__name__)

MESSAGE = "figures"
SHED = "overloaded"
"""The reason of `gateway.telemetry.reasons` by which load is refused."""

GAUGES = {"saturation": d.SATURATION, "in_flight": d.IN_FLIGHT_REQUESTS, "release_problems": d.RELEASE_PROBLEM}
COUNTERS = {"shed": d.REFUSALS, "ledger_failures": d.LEDGER_FAILURES}
"""Fields of the line. Of a counter it tells what was added since the line before, so that lines of many gateways add up."""


async def write(samples: Callable[[], Iterable[Sample]], every_s: float) -> None:
    """A line every `every_s`, until cancelled."""
    before: Mapping[str, float] = {}
    while True:
        await asyncio.sleep(every_s)
        now = read(samples())
        logger.info(MESSAGE, extra=since(before, now))
        before = now


def read(samples: Iterable[Sample]) -> dict[str, float]:
    """Every field as it stands; a field that has no sample is 0. Values of several labels are added up."""
    found = Counter[str](dict.fromkeys((*GAUGES, *COUNTERS), 0))
    fields = {metric.name: field for field, metric in (GAUGES | COUNTERS).items()}
    for metric, labels, value in samples:
        field = fields.get(metric.name)
        if field and isinstance(value, int | float) and (metric is not d.REFUSALS or labels == (SHED,)):
            found[field] += value  # type: ignore[assignment]  # a Counter adds floats too
    return dict(found)


def since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Gauges as they are, counters by how much they grew."""
    return {field: value - before.get(field, 0) if field in COUNTERS else value for field, value in now.items()}

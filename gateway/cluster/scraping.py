"""What the gateways' `/metrics` say, in the few figures that a cluster's table and its autoscaler need."""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.cluster.asking import ask
from gateway.cluster.envoyfile import Address
from gateway.telemetry import definitions as d


class Figures(msgspec.Struct, frozen=True):
    """Of one gateway since it began; `saturation`, `models` and `in_flight` are of now."""

    requests: int = 0
    refusals: int = 0
    cost_picousd: int = 0
    loads: int = 0
    models: int = 0
    in_flight: int = 0
    saturation: float = 0.0


def figures(page: str) -> Figures:
    """From a page in Prometheus's text format; a family that is not there counts as nothing."""
    sums: dict[str, float] = {}
    exact: dict[str, int] = {}
    for name, value in _samples(page):
        sums[name] = sums.get(name, 0.0) + float(value)
        if value.isdigit():  # picodollars outgrow what a float counts exactly
            exact[name] = exact.get(name, 0) + int(value)
    return Figures(
        requests=int(sums.get(d.REQUESTS.sample, 0)),
        refusals=int(sums.get(d.REFUSALS.sample, 0)),
        cost_picousd=exact.get(d.COST_PICODOLLARS.sample, 0),
        loads=int(sums.get(d.LOADS.sample, 0)),
        models=int(sums.get(d.RESIDENT_VERSIONS.sample, 0)),
        in_flight=int(sums.get(d.IN_FLIGHT_REQUESTS.sample, 0)),
        saturation=sums.get(d.SATURATION.sample, 0.0),
    )


def _samples(page: str) -> Iterator[tuple[str, str]]:
    for line in page.splitlines():
        if line and line[0] != "#":
            head, _, value = line.rpartition(" ")
            name = head.partition("{")[0]
            if value and not math.isnan(float(value)):
                yield name, value


async def scrape(gateways: Mapping[str, Address]) -> dict[str, Figures]:
    """All of them at once, by name; who does not answer is not in it."""
    pages = await asyncio.gather(*(ask(address, "/metrics") for address in gateways.values()), return_exceptions=True)
    answered: dict[str, Figures] = {}
    for name, page in zip(gateways, pages, strict=True):
        if isinstance(page, OSError):
            continue
        if isinstance(page, BaseException):
            raise page
        if page[0] == 200:
            answered[name] = figures(page[1])
    return answered


def total(all_figures: Sequence[Figures]) -> Figures:
    """Of several together; their saturation is the mean."""
    return Figures(
        requests=sum(one.requests for one in all_figures),
        refusals=sum(one.refusals for one in all_figures),
        cost_picousd=sum(one.cost_picousd for one in all_figures),
        loads=sum(one.loads for one in all_figures),
        models=sum(one.models for one in all_figures),
        in_flight=sum(one.in_flight for one in all_figures),
        saturation=sum(one.saturation for one in all_figures) / max(1, len(all_figures)),
    )

"""Writes `/metrics`: the Prometheus text format, or OpenMetrics when the scraper prefers it.

Own code because importing prometheus_client costs a cold start 32 ms (python -X importtime), most of it for the HTTP servers it
brings; the tests read the page with its parsers. A template per histogram renders a whole series in one formatting.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from time import perf_counter_ns

from gateway.telemetry.definitions import METRICS, Metric
from gateway.telemetry.histogram import Histogram

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LOOP_NS_MAX = 1_000_000
"""How long rendering holds the event loop before others have their turn: a page of 200 busy models takes several milliseconds."""

_DIVISORS = {"seconds": 10**9, "dollars": 10**12}

Value = int | float | Histogram
Sample = tuple[Metric, tuple[str, ...], Value]
"""A metric, its labels' values in the order of its definition, and its value: nanoseconds for seconds, pico-dollars for dollars."""

Source = Callable[[], Iterable[Sample]]
"""Reads the figures of one part of the gateway when the page is asked for; asks no store and waits for nothing."""


class MetricsPage:
    """What `/metrics` answers, read from these sources."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._sources = [*sources]

    def add(self, source: Source) -> None:
        """Show these figures too."""
        self._sources.append(source)

    def samples(self) -> Iterator[Sample]:
        """Everything that the page shows, as it is now."""
        for source in self._sources:
            yield from source()

    async def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type. `accept` is the request's header."""
        is_openmetrics = "application/openmetrics-text" in accept
        pieces: list[str] = []
        encoded: list[bytes] = []
        turn_ns = perf_counter_ns()
        for piece in self._pieces(is_openmetrics):
            pieces.append(piece)
            if perf_counter_ns() - turn_ns > LOOP_NS_MAX:
                encoded.append("".join(pieces).encode())
                pieces.clear()
                await asyncio.sleep(0)
                turn_ns = perf_counter_ns()
        encoded.append("".join(pieces).encode())
        return b"".join(encoded), OPENMETRICS if is_openmetrics else TEXT

    def _pieces(self, is_openmetrics: bool) -> Iterator[str]:
        families: defaultdict[str, list[tuple[tuple[str, ...], Value]]] = defaultdict(list)
        for metric, labels, value in self.samples():
            families[metric.name].append((labels, value))
            yield ""
        label_texts: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
        for metric in METRICS:
            if samples := families.get(metric.name):
                yield _head(metric, is_openmetrics)
                write = _histogram_writer(metric) if metric.kind == "histogram" else _value_writer(metric)
                for labels, value in samples:
                    key = (metric.labels, labels)  # a version's labels are the same in a dozen families
                    if (label_text := label_texts.get(key)) is None:
                        label_text = label_texts[key] = _labels(metric, labels)
                    yield write(label_text, value)
        if is_openmetrics:
            yield "# EOF\n"


def _head(metric: Metric, is_openmetrics: bool) -> str:
    name = metric.name if is_openmetrics else metric.sample
    unit = f"# UNIT {name} {metric.unit}\n" if is_openmetrics and metric.unit else ""
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n{unit}"


def _value_writer(metric: Metric) -> Callable[[str, Value], str]:
    sample, divisor = metric.sample, _DIVISORS.get(metric.unit)

    def write(labels: str, value: Value) -> str:
        assert not isinstance(value, Histogram)
        own = f"{sample}{{{labels}}}" if labels else sample
        return f"{own} {value / divisor if divisor else value}\n"

    return write


def _histogram_writer(metric: Metric) -> Callable[[str, Value], str]:
    """A template per family, into which a series' labels and then its numbers are put."""
    divisor = _DIVISORS.get(metric.unit, 1)
    templates: dict[tuple[int, ...], str] = {}

    def write(labels: str, value: Value) -> str:
        assert isinstance(value, Histogram)
        template = templates.get(value.bounds)
        if template is None:
            template = templates[value.bounds] = _template(metric, value.bounds, divisor)
        counts = tuple(accumulate(value.counts))
        return template.replace("\0", labels.replace("%", "%%")) % (*counts, value.total / divisor, counts[-1])

    return write


def _template(metric: Metric, bounds: tuple[int, ...], divisor: int) -> str:
    name, comma = metric.name, "," if metric.labels else ""
    own = "{\0}" if metric.labels else ""
    limits = [*(repr(bound / divisor) for bound in bounds), "+Inf"]
    buckets = "".join(f'{name}_bucket{{\0{comma}le="{limit}"}} %d\n' for limit in limits)
    return f"{buckets}{name}_sum{own} %r\n{name}_count{own} %d\n"


def _labels(metric: Metric, values: tuple[str, ...]) -> str:
    return ",".join([f'{name}="{_escape(value)}"' for name, value in zip(metric.labels, values, strict=True)])


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""The line of figures: what autoscalers on a log read is what `/metrics` shows, and counters are told by what was added."""

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway.telemetry import definitions as d
from gateway.telemetry import figures, logs
from gateway.telemetry.exposition import MetricsPage, Sample
from gateway.telemetry.histogram import Histogram


class Counts:
    """A page of two sources whose counters a test moves."""

    def __init__(self) -> None:
        self.shed = 0
        self.failures = 0
        self.page = MetricsPage([self._load, self._rest])

    def _load(self) -> Iterator[Sample]:
        yield d.SATURATION, (), 0.75
        yield d.SATURATION_PART, ("cpu",), 0.5
        yield d.IN_FLIGHT_REQUESTS, (), 7
        yield d.LOOP_LAG_SECONDS, (), Histogram()

    def _rest(self) -> Iterator[Sample]:
        yield d.REFUSALS, ("invalid",), 1000
        yield d.REFUSALS, (figures.SHED,), self.shed
        yield d.RELEASE_PROBLEM, ("a",), 1
        yield d.RELEASE_PROBLEM, ("b",), 1
        yield d.LEDGER_FAILURES, (), self.failures


def test_gauges_are_told_as_they_are_and_counters_by_what_was_added() -> None:
    counts = Counts()
    counts.shed, counts.failures = 5, 1
    first = figures.read(counts.page.samples())
    assert figures.since({}, first) == {
        "saturation": 0.75, "in_flight": 7, "release_problems": 2, "shed": 5, "ledger_failures": 1,
    }  # fmt: skip
    counts.shed = 12
    second = figures.since(first, figures.read(counts.page.samples()))
    assert (second["shed"], second["ledger_failures"], second["saturation"]) == (7, 0, 0.75)


def test_a_figure_without_a_sample_is_zero_and_not_missing() -> None:
    assert figures.read([]) == dict.fromkeys(
        ("saturation", "in_flight", "release_problems", "shed", "ledger_failures"), 0
    )


def test_the_reason_that_counts_as_shed_is_one_that_there_is() -> None:
    from gateway.telemetry.reasons import REASONS

    assert figures.SHED in REASONS


async def test_a_line_carries_every_field_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    told = asyncio.Event()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    handler.addFilter(lambda _: told.set() or True)  # type: ignore[func-returns-value]
    monkeypatch.setattr(figures.logger, "handlers", [handler])
    monkeypatch.setattr(figures.logger, "propagate", False)
    figures.logger.setLevel("INFO")
    writing = asyncio.create_task(figures.write(Counts().page.samples, 0.001))
    await told.wait()
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    line = json.loads(stream.getvalue().splitlines()[0])
    assert line["message"] == figures.MESSAGE
    fields = (*figures.GAUGES, *figures.COUNTERS)
    assert {field: line[field] for field in fields} == figures.since({}, figures.read(Counts().page.samples()))
    assert set(fields) <= set(logs.FIELDS)

"""Comparing two answers, sampling, and a shadow that is slow or broken."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidInput
from gateway.repository.shadows import Difference, ShadowRun, compare
from gateway.runtime.session import RunResult
from tests.support.repositories import until

NAN = float("nan")


def floats(values: Any) -> dict[str, Any]:
    return {"scores": np.array(values, np.float32)}


@pytest.mark.parametrize(
    ("ours", "theirs", "disagreed", "max_abs"),
    [
        (floats([[0.1], [0.9]]), floats([[0.2], [0.8]]), 0, 0.1),
        (floats([[0.4], [0.9]]), floats([[0.6], [0.9]]), 1, 0.2),
        (floats([0.4, 0.9]), floats([0.6, 0.1]), 2, 0.8),
        (floats([[0.1, 0.7, 0.2]]), floats([[0.3, 0.4, 0.3]]), 0, 0.3),
        (floats([[0.1, 0.7, 0.2]]), floats([[0.4, 0.3, 0.3]]), 1, 0.4),
        (floats([[NAN], [0.1]]), floats([[NAN], [0.1]]), 0, 0.0),
        (floats([[NAN], [0.1]]), floats([[0.2], [0.1]]), 1, float("inf")),
        (floats([[float("inf")]]), floats([[float("inf")]]), 0, 0.0),
        (floats([[0.1]]), floats([[0.1, 0.2]]), 1, float("inf")),
        (floats([[0.1], [0.2]]), {}, 2, float("inf")),
        ({"n": np.array([[1], [2]])}, {"n": np.array([[1], [5]])}, 1, 3.0),
        ({"t": np.array([["a", "b"], ["c", "d"]], object)}, {"t": np.array([["a", "b"], ["c", "x"]], object)}, 1, 0.0),
        ({"b": np.array([True, False])}, {"b": np.array([True, True])}, 1, 0.0),
    ],
)
def test_answers_are_compared_by_label_and_by_distance(ours: Any, theirs: Any, disagreed: int, max_abs: float) -> None:
    difference = compare(ours, theirs)
    rows = len(next(iter(ours.values())))
    assert difference == Difference(rows, disagreed, pytest.approx(max_abs))  # type: ignore[arg-type]


@pytest.mark.parametrize(("sample_bp", "sampled"), [(1, 1), (2500, 2500), (3333, 3333), (10_000, 10_000)])
def test_the_sample_is_exact(sample_bp: int, sampled: int) -> None:
    run = ShadowRun(2, _never, sample_bp=sample_bp, running_max=1)
    assert sum(run.is_sampled() for _ in range(10_000)) == sampled


async def test_what_a_shadow_shows_adds_up() -> None:
    async def other(inputs: dict[str, Any]) -> RunResult:
        return RunResult(floats([[0.75]]), cpu_ns=5, run_ns=7)

    run = ShadowRun(2, other, sample_bp=10_000, running_max=100)
    for probability in (0.5, 0.75, 0.25):
        run.mirror({}, floats([[probability]]), run_ns=3)
    await until(lambda: run.comparison.requests == 3)
    seen = run.comparison
    assert (seen.rows, seen.disagreed, seen.disagreed_rows, seen.failures, seen.dropped) == (3, 1, 1, 0, 0)
    assert (seen.max_abs_difference, seen.primary_run_ns, seen.shadow_run_ns, seen.shadow_cpu_ns) == (0.5, 9, 21, 15)


async def test_a_shadow_that_is_behind_is_passed_over() -> None:
    gate = asyncio.Event()

    async def slow(inputs: dict[str, Any]) -> RunResult:
        await gate.wait()
        return RunResult(floats([[0.5]]), 1, 1)

    run = ShadowRun(2, slow, sample_bp=10_000, running_max=2)
    for _ in range(5):
        run.mirror({}, floats([[0.5]]), run_ns=1)
    assert run.comparison.dropped == 3
    gate.set()
    await until(lambda: run.comparison.requests == 2)


async def test_a_shadow_that_fails_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(inputs: dict[str, Any]) -> RunResult:
        raise InvalidInput("the model refuses this input")

    run = ShadowRun(2, broken, sample_bp=10_000, running_max=10)
    for _ in range(4):
        run.mirror({}, floats([[0.5]]), run_ns=1)
    await until(lambda: run.comparison.failures == 4)
    assert run.comparison.requests == 0
    assert len([record for record in caplog.records if "shadow version 2 fails" in record.getMessage()]) == 1


async def test_what_a_failing_shadow_says_of_a_request_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def telling(inputs: dict[str, Any]) -> RunResult:
        raise ValueError("no such customer: Jane Doe")

    run = ShadowRun(2, telling, sample_bp=10_000, running_max=1)
    run.mirror({}, floats([[0.5]]), run_ns=1)
    await until(lambda: run.comparison.failures == 1)
    assert "shadow version 2 fails" in caplog.text
    assert "ValueError" in caplog.text
    assert "Jane" not in caplog.text


async def test_large_answers_are_compared_off_the_event_loop() -> None:
    """11 ms for 1,000 rows of 768 numbers, in which nobody else would be answered."""
    threads: list[int] = []

    class Outputs(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            threads.append(threading.get_ident())
            return super().get(name, default)

    async def shadow(inputs: dict[str, Any]) -> RunResult:
        return RunResult(Outputs(floats([[0.5]])), cpu_ns=1, run_ns=1)

    run = ShadowRun(2, shadow, sample_bp=10_000, running_max=1)
    run.mirror({}, floats([[0.5]]), run_ns=1)
    await until(lambda: run.comparison.requests == 1)
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


async def test_closing_ends_what_runs() -> None:
    run = ShadowRun(2, _never, sample_bp=10_000, running_max=10)
    run.mirror({}, floats([[0.5]]), run_ns=1)
    await asyncio.sleep(0)
    run.close()
    await until(lambda: not run._running)
    assert run.comparison.failures == 0


async def _never(inputs: dict[str, Any]) -> RunResult:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")

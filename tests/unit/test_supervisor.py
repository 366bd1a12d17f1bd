"""What a supervisor decides about a run: pure, on views of jobs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.launch import supervisor
from trainers.launch.jobview import JobView
from trainers.spec import reading

SPEC = reading.from_options(
    {
        "recipe": "flights",
        "limits.wall": "10h",
        "limits.no_progress_attempts": 3,
        "market.fallback_on_demand_after": "2h",
    }
)


def view(**changes: Any) -> JobView:
    """A run whose ten attempts were used up."""
    usual = JobView(
        run_id="run-1",
        job="job",
        number=1,
        spec=SPEC,
        store="s3://bucket",
        status="FAILED",
        queue="gpu-spot",
        definition="arn",
        attempts=10,
        is_retryable=True,
        last_end="exit code 143",
        waiting_since_s=1_000.0,
        first_submitted_s=1_000.0,
        more={},
    )
    return usual._replace(**changes)


def decided(found: JobView, steps: tuple[int, ...] = (), now_s: float = 2_000.0) -> str:
    return supervisor.decide(found, steps, now_s).kind


def test_a_run_that_got_on_is_resubmitted() -> None:
    assert decided(view(), (100, 200, 300)) == "resubmit"


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((), "give-up"),
        ((0, 0, 0), "give-up"),
        ((5,), "resubmit"),
        ((100, 200, 200, 200, 200), "give-up"),
        ((100, 200, 200, 200, 201), "resubmit"),
        ((300, 100, 150, 200), "give-up"),  # back to an older checkpoint and not beyond it
    ],
)
def test_progress_is_a_step_that_no_earlier_attempt_had(steps: tuple[int, ...], kind: str) -> None:
    assert decided(view(), steps) == kind


def test_giving_up_says_how_far_it_came_and_how_it_ended() -> None:
    decision = supervisor.decide(view(), (7, 7, 7, 7), 2_000.0)
    assert decision.reason == "no step gained in the last 3 attempts (step 7; exit code 143)"


def test_a_run_past_its_wall_limit_is_given_up() -> None:
    assert decided(view(), (1, 2, 3), now_s=1_000.0 + 10 * 3600) == "give-up"
    assert decided(view(), (1, 2, 3), now_s=999.0 + 10 * 3600) == "resubmit"


@pytest.mark.parametrize(
    "changes",
    [
        {"attempts": 3, "is_retryable": False},  # exit code 64: final
        {"attempts": 10, "is_retryable": False},  # a bug in the tenth attempt
        {"attempts": 0},  # cancelled while waiting
        {"status": "SUCCEEDED"},
        {"status": "RUNNING"},
        {"status": "RUNNABLE"},
        {"status": "WHATEVER"},  # a state that Batch may have one day is no failure
    ],
)
def test_what_did_not_use_up_its_attempts_is_left_alone(changes: dict[str, Any]) -> None:
    assert decided(view(**changes), (1, 2, 3)) == "leave"


@pytest.mark.parametrize(("waited_s", "kind"), [(7_199, "leave"), (7_200, "move")])
def test_who_waits_too_long_for_spot_is_moved(waited_s: float, kind: str) -> None:
    assert decided(view(status="RUNNABLE", attempts=2), now_s=1_000.0 + waited_s) == kind


def test_without_a_fallback_it_waits() -> None:
    spec = reading.from_options({"recipe": "flights"})
    assert decided(view(status="RUNNABLE", spec=spec), now_s=1e9) == "leave"


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(0, 1000))
def test_one_more_attempt_never_makes_a_run_that_got_further_hopeless(steps: list[int], more: int) -> None:
    longer = (*steps, max(steps, default=0) + more + 1)
    assert decided(view(), longer) == "resubmit"

"""An invocation is one visit of the meter, whoever of the loop and the listener ends last, and is ended exactly once."""

import itertools

import pytest

from gateway.lambdaruntime.visit import Visit


class Told:
    """A meter's two functions, with a clock that only counts."""

    def __init__(self) -> None:
        self.clock = itertools.count(1)
        self.begun: list[int] = []
        self.ended: list[tuple[int, str]] = []

    def begin(self) -> int:
        self.begun.append(next(self.clock))
        return self.begun[-1]

    def end(self, began_ns: int, request_id: str) -> None:
        self.ended.append((began_ns, request_id))


@pytest.fixture
def told() -> Told:
    return Told()


def test_it_lasts_until_lambda_has_the_answer(told: Told) -> None:
    visit = Visit(told.begin, told.end)
    for number in (1, 2):
        visit.open()
        visit.end(visit.begin(), f"request-{number}")
        assert len(told.ended) == number - 1
        visit.close()
    assert told.begun == [1, 2]
    assert told.ended == [(1, "request-1"), (2, "request-2")]


def test_an_event_that_is_no_request_is_billed_too(told: Told) -> None:
    visit = Visit(told.begin, told.end)
    visit.open()
    visit.close()
    assert told.ended == [(1, "")]


def test_a_request_that_was_given_up_is_ended_by_its_connection(told: Told) -> None:
    visit = Visit(told.begin, told.end)
    visit.open()
    began_ns = visit.begin()
    visit.close()
    assert told.ended == []
    visit.end(began_ns, "late")
    assert told.ended == [(1, "late")]


def test_one_that_ends_during_the_next_ends_its_own(told: Told) -> None:
    visit = Visit(told.begin, told.end)
    visit.open()
    first_ns = visit.begin()
    visit.close()
    visit.open()
    second_ns = visit.begin()
    visit.end(first_ns, "late")
    visit.end(second_ns, "in time")
    visit.close()
    assert sorted(told.ended) == [(1, "late"), (2, "in time")]


def test_a_client_of_its_own_is_a_visit_of_its_own(told: Told) -> None:
    visit = Visit(told.begin, told.end)
    visit.end(visit.begin(), "before")
    visit.open()
    ours_ns, theirs_ns = visit.begin(), visit.begin()
    visit.end(theirs_ns, "theirs")
    visit.end(ours_ns, "ours")
    visit.close()
    assert told.ended == [(1, "before"), (3, "theirs"), (2, "ours")]

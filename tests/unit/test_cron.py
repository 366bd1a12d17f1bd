"""Cron lines: what they mean, what is refused, and that EventBridge's way of writing them means the same."""

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainers.spec import cron, feasible

MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2032, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def field(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    spans = st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.just("*") | st.lists(st.one_of(numbers.map(str), spans, steps), min_size=1, max_size=4).map(",".join)


def lines() -> st.SearchStrategy[str]:
    """With one of the two days left open."""
    days = st.one_of(st.tuples(field(1, 28), st.just("*")), st.tuples(st.just("*"), field(0, 7)))
    return st.tuples(field(0, 59), field(0, 23), days, field(1, 12)).map(
        lambda parts: f"{parts[0]} {parts[1]} {parts[2][0]} {parts[3]} {parts[2][1]}"
    )


def happens(text: str, at: datetime) -> bool:
    """Whether a classic cron line matches this minute: written from crontab(5), apart from what is tested."""
    minute, hour, day, month, weekday = text.split()
    matches = [_matches(minute, at.minute, 59), _matches(hour, at.hour, 23), _matches(day, at.day, 31, 1)]
    sunday = (at.weekday() + 1) % 7
    either = _matches(weekday, sunday, 7) or (sunday == 0 and _matches(weekday, 7, 7))
    return all(matches) and _matches(month, at.month, 12, 1) and either


def aws_happens(expression: str, at: datetime) -> bool:
    """The same for EventBridge's form, by its own rules: `?` says nothing, days of week are 1 (Sunday) to 7, years come last."""
    minute, hour, day, month, weekday, year = expression.removeprefix("cron(").removesuffix(")").split()
    assert (day == "?") != (weekday == "?")
    assert year == "*"
    aws_day = (at.weekday() + 1) % 7 + 1
    return (
        _matches(minute, at.minute, 59)
        and _matches(hour, at.hour, 23)
        and (day == "?" or _matches(day, at.day, 31, 1))
        and _matches(month, at.month, 12, 1)
        and (weekday == "?" or _matches(weekday, aws_day, 7, 1))
    )


def _matches(text: str, value: int, high: int, low: int = 0) -> bool:
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-") if span != "*" else (str(low), "-", str(high))
        if int(first) <= value <= int(last or first) and (value - int(first)) % int(step or 1) == 0:
            return True
    return False


@given(lines(), MOMENTS)
@example("0 3 * * 1", datetime(2026, 11, 30, 3, 0, tzinfo=UTC))
@example("0 3 * * 0", datetime(2026, 11, 29, 3, 0, tzinfo=UTC))
@example("0 3 * * 5-7", datetime(2026, 11, 29, 3, 0, tzinfo=UTC))
@example("*/7 */5 */9 1-11/3 *", datetime(2026, 4, 10, 5, 7, tzinfo=UTC))
def test_the_converted_line_means_the_same_minutes(line: str, at: datetime) -> None:
    expression = cron.aws(cron.parse(line))
    whole_day = [at.replace(hour=0, minute=0) + timedelta(minutes=minute) for minute in range(0, 1440, 13)]
    for moment in [at, *whole_day]:
        assert happens(line, moment) == aws_happens(expression, moment), moment


@given(lines())
def test_a_set_of_every_value_is_a_star(line: str) -> None:
    parsed = cron.parse(line)
    minutes, *_, weekdays, _ = cron.aws(parsed).removeprefix("cron(").split()
    assert (minutes == "*") == (len(parsed.minutes) == 60)
    assert (weekdays == "?") == parsed.is_any_weekday


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("0 3 * * 1", "cron(0 3 ? * 2 *)"),
        ("30 6 1 * *", "cron(30 6 1 * ? *)"),
        ("*/15 * * * *", "cron(0,15,30,45 * * * ? *)"),
        ("0 0 * jan-mar,dec SUN", "cron(0 0 ? 1-3,12 1 *)"),
        ("0 0 * * 1-5", "cron(0 0 ? * 2-6 *)"),
        ("0 0 * * 6,7", "cron(0 0 ? * 1,7 *)"),
        ("0 0 29 2 *", "cron(0 0 29 2 ? *)"),
        ("0 0 31 */2 *", "cron(0 0 31 1,3,5,7,9,11 ? *)"),
    ],
)
def test_what_eventbridge_is_told(line: str, expression: str) -> None:
    assert cron.aws(cron.parse(line)) == expression


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "has 0 fields"),
        ("@daily", "has 1 fields"),
        ("0 0 * * * *", "has 6 fields"),
        ("60 0 * * *", "minute '60' is not between 0 and 59"),
        ("0 24 * * *", "hour '24'"),
        ("0 0 0 * *", "day of month '0'"),
        ("0 0 * 13 *", "month '13'"),
        ("0 0 * * 8", "day of week '8'"),
        ("0 0 * * mo", "day of week 'mo'"),
        ("0 0 ? * 1", "day of month '?'"),
        ("-1 0 * * *", "minute '-1'"),
        ("5-1 0 * * *", "runs backwards"),
        ("5/10 0 * * *", "a step needs a range"),
        ("*/0 0 * * *", "has a step"),
        ("1, 0 * * *", "minute '' is not"),
        ("1,,2 0 * * *", "minute '' is not"),
        ("0 0 1 * 1", "restricts the day of month and the day of week"),
        ("0 0 30 2 *", "never happens: February has no day 30"),
        ("0 0 31 feb,apr,jun,sep,nov *", "never happens: February, April, June, September, November has no day 31"),
        ("٣ 0 * * *", "minute '٣'"),
    ],
)
def test_what_is_no_cron_line_is_refused_by_field(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        cron.parse(line)
    assert why in str(caught.value)


@given(st.integers(1, 31), st.sets(st.integers(1, 12), min_size=1))
def test_only_dates_that_no_year_has_are_impossible(day: int, months: set[int]) -> None:
    line = f"0 0 {day} {','.join(map(str, months))} *"
    exists = any(day <= calendar.monthrange(2028, month)[1] for month in months)
    if exists:
        assert cron.parse(line).days == (day,)
    else:
        with pytest.raises(ValueError, match="never happens"):
            cron.parse(line)


def test_an_unknown_time_zone_is_answered_with_the_nearest() -> None:
    assert feasible.timezone_problem("Europe/Paris") == ""
    assert "did you mean 'Europe/Paris'?" in feasible.timezone_problem("Europe/Pariss")
    assert "as in 'Europe/Paris'" in feasible.timezone_problem("qqqqqqqq")

"""How often a month an EventBridge schedule starts something, on average over a year. For an estimate: nobody schedules by this.

Knows cron(minute hour day month weekday year), rate(N minutes|hours|days) and at(...), which starts once and counts as nothing.
"""

import re
from fractions import Fraction

from gateway.errors import SettingsError

YEAR_DAYS = 365
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_UNIT_MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60}


def per_month(expression: str) -> Fraction:
    """Starts in a twelfth of a year. Raises `SettingsError` for what EventBridge would not take either."""
    if expression.startswith("at("):
        return Fraction(0)
    if rate := re.fullmatch(r"rate\(([1-9][0-9]*) (minute|hour|day)s?\)", expression):
        return Fraction(YEAR_DAYS * 24 * 60, 12 * int(rate[1]) * _UNIT_MINUTES[rate[2]])
    cron = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) \S+\)", expression)
    if cron is None:
        raise SettingsError(f"schedule '{expression}' is neither cron(...) with six fields nor rate(...) nor at(...)")
    minute, hour, day, month, weekday = cron.groups()
    times = _count(minute, 0, 59) * _count(hour, 0, 23)
    return times * _days(day, weekday) * Fraction(_count(month, 1, 12, MONTHS), 12)


def _days(day: str, weekday: str) -> Fraction:
    """Of a month. One of the two fields is `?`."""
    if weekday not in {"?", "*"}:
        if "#" in weekday or weekday.upper().endswith("L"):
            return Fraction(1)
        return Fraction(_count(weekday, 1, 7, WEEKDAYS) * YEAR_DAYS, 7 * 12)
    if day in {"?", "*"}:
        return Fraction(YEAR_DAYS, 12)
    if day.upper() == "L" or day.upper().endswith("W"):
        return Fraction(1)
    return Fraction(_count(day, 1, 31))  # the 31st is not in every month: an estimate lets it be


def _count(field: str, low: int, high: int, words: tuple[str, ...] = ()) -> int:
    """How many values a field names."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span in {"*", "?"}:
            first, last = low, high
        else:
            begin, _, end = span.partition("-")
            first = _value(begin, low, words)
            last = _value(end, low, words) if end else (high if step else first)
        found.update(range(first, last + 1, int(step) if step.isdigit() and int(step) else 1))
    return len({value for value in found if low <= value <= high})


def _value(text: str, low: int, words: tuple[str, ...]) -> int:
    if text.upper() in words:
        return words.index(text.upper()) + low
    if not text.isdigit():
        raise SettingsError(f"'{text}' in a schedule is no number")
    return int(text)

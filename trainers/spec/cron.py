"""A five-field cron line as sets of numbers, and as EventBridge Scheduler writes it. Pure; says when, never does anything.

Fields: minute, hour, day of month, month, day of week (0 or 7 is Sunday), with `*`, lists, ranges, steps and English names. A line
that restricts both days is refused: cron reads it as "either", EventBridge cannot say it, and most who write it mean "both".
"""

import calendar
import re

import msgspec

MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if number}
_NUMBER = re.compile(r"[0-9]{1,2}")
_LEAP_YEAR = 2024


class Field(msgspec.Struct, frozen=True):
    name: str
    low: int
    high: int
    words: dict[str, int] = {}


DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, {name.lower(): number for name, number in MONTHS.items()}),
    Field("day of week", 0, 7, DAYS),
)


class Cron(msgspec.Struct, frozen=True):
    """What each field allows, ascending. Days of week are 0 (Sunday) to 6."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]

    @property
    def is_any_day(self) -> bool:
        return len(self.days) == 31

    @property
    def is_any_weekday(self) -> bool:
        return len(self.weekdays) == 7


def parse(line: str) -> Cron:
    """Raises `ValueError` naming the field, or the date that no year has."""
    texts = line.lower().split()
    if len(texts) != len(FIELDS):
        raise ValueError(
            f"{line!r} has {len(texts)} fields; cron has 5: minute, hour, day of month, month, day of week, as in '0 3 * * 1'"
        )
    sets = [_field(text, field) for text, field in zip(texts, FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = sets
    cron = Cron(minutes, hours, days, months, tuple(sorted({day % 7 for day in weekdays})))
    if not cron.is_any_day and not cron.is_any_weekday:
        raise ValueError(
            f"{line!r} restricts the day of month and the day of week; leave one of them '*', or make two schedules"
        )
    if not any(day <= calendar.monthrange(_LEAP_YEAR, month)[1] for month in months for day in days):
        names = ", ".join(calendar.month_name[month] for month in months)
        raise ValueError(f"{line!r} never happens: {names} has no day {min(days)}")
    return cron


def aws(cron: Cron) -> str:
    """`cron(minute hour day month weekday year)`: one of the days is `?`, and Sunday is 1.

    Source: EventBridge Scheduler user guide, "Schedule types", cron-based schedules.
    """
    day = "?" if not cron.is_any_weekday else _text(cron.days, FIELDS[2])
    weekday = "?" if cron.is_any_weekday else _ranges([day + 1 for day in cron.weekdays])
    fields = [_text(cron.minutes, FIELDS[0]), _text(cron.hours, FIELDS[1]), day, _text(cron.months, FIELDS[3]), weekday]
    return f"cron({' '.join(fields)} *)"


def _field(text: str, field: Field) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        found.update(_part(part, field))
    return tuple(sorted(found))


def _part(part: str, field: Field) -> range:
    span, slash, step_text = part.partition("/")
    step = _step(step_text, part, field) if slash else 1
    if span == "*":
        return range(field.low, field.high + 1, step)
    first_text, dash, last_text = span.partition("-")
    first = _value(first_text, part, field)
    if not dash:
        if slash:
            raise ValueError(
                f"{field.name} '{part}': a step needs a range, as in '*/{step}' or '{first}-{field.high}/{step}'"
            )
        return range(first, first + 1)
    last = _value(last_text, part, field)
    if last < first:
        raise ValueError(f"{field.name} '{part}' runs backwards; write two ranges separated by a comma")
    return range(first, last + 1, step)


def _value(text: str, part: str, field: Field) -> int:
    value = field.words.get(text, int(text) if _NUMBER.fullmatch(text) else None)
    if value is None or not field.low <= value <= field.high:
        raise ValueError(f"{field.name} '{part}' is not between {field.low} and {field.high}")
    return value


def _step(text: str, part: str, field: Field) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= field.high:
        raise ValueError(f"{field.name} '{part}' has a step that is not between 1 and {field.high}")
    return int(text)


def _text(values: tuple[int, ...], field: Field) -> str:
    return "*" if len(values) == field.high - field.low + 1 else _ranges(list(values))


def _ranges(values: list[int]) -> str:
    """Ascending numbers as a list in which three or more neighbours are a range."""
    parts: list[str] = []
    while values:
        length = next((i for i in range(1, len(values)) if values[i] != values[0] + i), len(values))
        if length < 3:
            length = 1
        parts.append(f"{values[0]}-{values[length - 1]}" if length > 1 else str(values[0]))
        values = values[length:]
    return ",".join(parts)

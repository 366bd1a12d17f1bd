"""Whether a schedule of EventBridge or Application Auto Scaling has had its last time: at(...) and cron(...) with years.

Not a cron: of a cron expression it takes the latest year, month, day, hour and minute that its fields allow, which is no earlier
than its last time. So what is said to be over is over; a weekday that rules out the last days is not noticed.
"""

import calendar
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MONTHS = [name.upper() for name in calendar.month_abbr]
EVER = 9999  # a year that no schedule names


def latest(expression: str, zone: str) -> datetime | None:
    """No earlier than the schedule's last time; None where it has none.

    Raises ValueError with a sentence for what is no schedule.
    """
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"there is no time zone {zone!r}") from error
    found = re.fullmatch(r"(at|cron|rate)\((.+)\)", expression)
    if found is None:
        raise ValueError(f"{expression!r} is none of at(...), cron(...) and rate(...)")
    if found[1] == "rate":
        return None
    try:
        moment = _at(found[2]) if found[1] == "at" else _last(found[2].split())
    except ValueError as error:
        raise ValueError(f"{expression} is no schedule: {error}") from error
    return None if moment is None else moment.replace(tzinfo=place).astimezone(UTC)


def _at(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007 - its time zone is the schedule's


def _last(fields: list[str]) -> datetime | None:
    if len(fields) != 6:
        raise ValueError("cron has six fields, minute hour day month weekday year")
    minute, hour, day, month, _, year = fields
    last_year = _largest(year, EVER)
    if last_year >= EVER:
        return None
    last_month = _largest(month, 12)
    days = calendar.monthrange(last_year, last_month)[1]
    return datetime(  # noqa: DTZ001 - its time zone is the schedule's
        last_year, last_month, min(_largest(day, days), days), _largest(hour, 23), _largest(minute, 59)
    )


def _largest(field: str, top: int) -> int:
    """The largest value that a field allows; `top` where it does not say, or says it in a way that is not read here."""
    values = []
    for part in field.upper().split(","):
        end = part.partition("-")[2] or part
        number = MONTHS.index(end) if end in MONTHS[1:] else int(end) if end.isdecimal() else top
        values.append(top if "/" in part else number)
    return max(values)

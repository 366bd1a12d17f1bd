"""Times as people write them: `90s`, `30m`, `12h`, `1h30m`. One canonical text per length: equal specs have equal digests.

A plain number is refused: nobody can tell whether 30 means seconds or minutes.
"""

import re

DURATION_S_MAX = 366 * 86_400
"""A year: how old data may be at most. Nothing else lasts so long."""

RULE = "a length of time such as '90s', '30m', '12h', '7d' or '1h30m'"
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_TEXT = re.compile("".join(rf"(?:(\d{{1,9}}){unit})?" for unit, _ in _UNITS), re.ASCII)


class Duration(str):
    """A length of time; its text is canonical."""

    __slots__ = ()

    @property
    def seconds(self) -> int:
        """At least 1."""
        return _seconds(self)


class Interval(str):
    """`auto`, or a length of time."""

    __slots__ = ()

    @property
    def seconds(self) -> int | None:
        """None for `auto`."""
        return None if self == "auto" else _seconds(self)


def duration(raw: object) -> Duration:
    """Raises `ValueError` that says what a length of time looks like."""
    return Duration(_canonical(_seconds(raw)))


def interval(raw: object) -> Interval:
    """Raises `ValueError` as `duration` does."""
    return Interval("auto" if raw == "auto" else _canonical(_seconds(raw)))


def _seconds(raw: object) -> int:
    found = _TEXT.fullmatch(raw) if isinstance(raw, str) and raw else None
    if found is None:
        raise ValueError(f"{raw!r} is not {RULE}")
    total = sum(int(count or 0) * seconds for count, (_, seconds) in zip(found.groups(), _UNITS, strict=True))
    if not 1 <= total <= DURATION_S_MAX:
        raise ValueError(f"{raw!r} is not between 1s and 366d")
    return total


def _canonical(seconds: int) -> str:
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts)

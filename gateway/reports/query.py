"""What one can ask of a cost report, read from words: the command's options and the live page's query say the same.

Needs no DuckDB, so that the gateway can refuse a bad question before it starts anything.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import msgspec

from gateway.errors import InvalidInput

Dimension = Literal["model", "version", "tenant", "outcome", "activity", "day", "hour"]
View = Literal["direct", "full", "idle-to-cause"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
VIEWS: tuple[View, ...] = get_args(View)
ENERGY = ("no", "yes")
WORD_CHARACTERS_MAX = 256  # of a value in a query; the longest name of a model has 63


class Plan(msgspec.Struct, frozen=True):
    """`rows`: training is used up by so many predictions. `days`: evenly over so many days from the moment of publication."""

    over: Literal["rows", "days"]
    amount: int


class Query(msgspec.Struct, frozen=True):
    """What is asked. `since_ns` and `until_ns` bound the beginnings of segments; None is without a bound.

    `with_energy`: energy and carbon too, which takes longer.
    """

    by: tuple[Dimension, ...] = ("model", "version")
    since_ns: int | None = None
    until_ns: int | None = None
    model: str | None = None
    tenant: str | None = None
    view: View = "full"
    amortize: Plan | None = None
    with_energy: bool = False

    @property
    def read_ns(self) -> tuple[int | None, int | None]:
        """The bounds of what it rests on: what training is told in portions counts the answers of all time before."""
        return (None if self.amortize else self.since_ns), self.until_ns


def parse(pairs: Iterable[tuple[str, str]]) -> Query:
    """From the names and values of a URL's query; empty values are as if absent. Raises `InvalidInput` naming what is wrong."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in {"by", "since", "until", "model", "tenant", "view", "amortize", "energy"}:
            raise InvalidInput(
                f"'{name[:32]}' is none of: by, since, until, model, tenant, view, amortize, energy, format"
            )
        if name in found:
            raise InvalidInput(f"'{name}' is given twice")
        if len(value) > WORD_CHARACTERS_MAX:
            raise InvalidInput(f"'{name}' is longer than {WORD_CHARACTERS_MAX} characters")
        if value:
            found[name] = value
    if found.get("view", "full") not in VIEWS:
        raise InvalidInput(f"view is one of: {', '.join(VIEWS)}")
    if found.get("energy", "no") not in ENERGY:
        raise InvalidInput(f"energy is one of: {', '.join(ENERGY)}")
    query = Query(
        by=dimensions(found["by"]) if "by" in found else ("model", "version"),
        since_ns=instant(found["since"]) if "since" in found else None,
        until_ns=instant(found["until"]) if "until" in found else None,
        model=found.get("model"),
        tenant=found.get("tenant"),
        view=found.get("view", "full"),  # type: ignore[arg-type] # checked above
        amortize=plan(found["amortize"]) if "amortize" in found else None,
        with_energy=found.get("energy") == "yes",
    )
    if query.since_ns is not None and query.until_ns is not None and query.since_ns >= query.until_ns:
        raise InvalidInput("since must be before until")
    return query


def dimensions(text: str) -> tuple[Dimension, ...]:
    """`model,day` as a tuple, each once. Raises `InvalidInput`."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in DIMENSIONS:
            raise InvalidInput(f"'{name[:32]}' is none of: {', '.join(DIMENSIONS)}")
    if len(set(names)) != len(names):
        raise InvalidInput("each may be named once")
    return names  # type: ignore[return-value] # checked above


def instant(text: str) -> int:
    """An ISO date or time as nanoseconds since the epoch; UTC unless it says otherwise. Raises `InvalidInput`."""
    try:
        parsed = datetime.fromisoformat(text)
        utc = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        since_epoch = utc - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"'{text}' is not an ISO date or time, such as 2026-11-05T14:30:00Z") from error
    if not timedelta(0) <= since_epoch < timedelta(days=365 * 200):
        raise InvalidInput(f"'{text}' is not between 1970 and 2169")
    return since_epoch // timedelta(microseconds=1) * 1000


def plan(text: str) -> Plan:
    """From `rows:1000000` or `days:90`. Raises `InvalidInput`."""
    over, _, amount = text.partition(":")
    if over not in {"rows", "days"} or not (amount.isascii() and amount.isdecimal()) or not 0 < int(amount) <= 10**15:
        raise InvalidInput(f"'{text[:64]}' is not rows:N or days:N, such as rows:1000000 or days:90")
    return Plan(over, int(amount))  # type: ignore[arg-type] # checked above

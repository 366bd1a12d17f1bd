"""How money and moments are written for people, in refusals, lists and reports: exact, short, UTC."""

from datetime import UTC, datetime
from decimal import Decimal


def usd(picousd: int) -> str:
    """Dollars without trailing zeros: `2.5`."""
    return f"{Decimal(picousd).scaleb(-12).normalize():f}"


def moment(at_ns: int) -> str:
    """`2026-11-25T10:00:00Z`; fractions of a second are cut off."""
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"

"""One row of an estimate."""

from fractions import Fraction

import msgspec


class Line(msgspec.Struct, frozen=True):
    """`usd` is None where a price is missing, `missing` then names it; `note` says what was assumed."""

    what: str
    quantity: str
    usd: Fraction | None
    note: str = ""
    missing: str = ""

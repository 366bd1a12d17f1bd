"""What differs between two price books, in percent, for the `steelyard prices` commands. Pure, but for the lines it words."""

from fractions import Fraction

import msgspec

from gateway.contract.prices import Price, PriceBook


class Change(msgspec.Struct, frozen=True):
    """One sku's newest price on either side; None where that book has none."""

    sku: str
    before: Price | None
    after: Price | None

    @property
    def percent(self) -> Fraction | None:
        """How much dearer it is; None when there is nothing to compare, or it is sold by another unit."""
        if self.before is None or self.after is None or self.before.unit != self.after.unit:
            return None
        return (Fraction(self.after.usd) / Fraction(self.before.usd) - 1) * 100

    @property
    def words(self) -> str:
        if self.before is None and self.after is not None:
            return f"{self.sku}: new, {_amount(self.after)}"
        if self.after is None and self.before is not None:
            return f"{self.sku}: no longer priced, was {_amount(self.before)}; containers billed by it become UNPRICED"
        assert self.before is not None
        assert self.after is not None
        if self.percent == 0:
            return f"{self.sku}: {_amount(self.after)} {_until(self.after)}, before {_until(self.before)}"
        by = "another unit" if self.percent is None else f"{float(self.percent):+.2f} %"
        return f"{self.sku}: {by}, {_amount(self.before)} -> {_amount(self.after)}"


def changes(before: PriceBook, after: PriceBook) -> list[Change]:
    """Skus whose newest price differs or ends on another day, in the order of their names. A new date of its beginning or another
    source alone is no change.
    """
    skus = sorted({price.sku for book in (before, after) for price in book.prices})
    found = [Change(sku, before.price(sku), after.price(sku)) for sku in skus]
    return [change for change in found if change.percent != 0 or _ends_otherwise(change)]


def platforms(before: PriceBook, after: PriceBook) -> list[str]:
    """Platforms that came, went, or bill otherwise, in words."""
    old, new = ({known.name: known for known in book.platforms} for book in (before, after))
    return [
        *(f"platform {name}: new" for name in new if name not in old),
        *(f"platform {name}: gone; containers set to it will not start" for name in old if name not in new),
        *(f"platform {name}: bills by another rule" for name in new if name in old and new[name] != old[name]),
    ]


def words(before: PriceBook, after: PriceBook) -> list[str]:
    """Every difference, a line each."""
    return [*(change.words for change in changes(before, after)), *platforms(before, after)]


def _ends_otherwise(change: Change) -> bool:
    return change.before is not None and change.after is not None and change.before.until != change.after.until


def _until(price: Price) -> str:
    return f"until {price.until}" if price.until else "without an end"


def _amount(price: Price) -> str:
    return f"${price.usd} per {price.unit} ({price.as_of})"

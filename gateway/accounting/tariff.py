"""What one provisioned sku costs over a container's life, in whole pico-dollars that never drift.

The bill up to a moment is rounded once; an interval is the difference of two such bills. So intervals of any lengths add up to the
rounded bill of the whole, to the pico-dollar.
"""

from fractions import Fraction

import msgspec

from gateway.contract import ledger, prices
from gateway.errors import SettingsError


class Tariff(msgspec.Struct, frozen=True):
    """A provisioned sku with its price: `numerator / denominator` pico-dollars per nanosecond of the container's life."""

    provisioned: ledger.ProvisionedSku
    numerator: int
    denominator: int

    def billed_picousd(self, age_ns: int) -> int:
        """The bill for the first `age_ns` of the container's life, rounded half to even."""
        whole, rest = divmod(self.numerator * age_ns, self.denominator)
        return whole + (2 * rest > self.denominator or (2 * rest == self.denominator and whole % 2))

    def charge(self, from_age_ns: int, to_age_ns: int) -> ledger.Charge:
        """What the platform bills between two ages of the container."""
        assert 0 <= from_age_ns <= to_age_ns
        return ledger.Charge(
            sku=self.provisioned.sku,
            unit=self.provisioned.unit,
            quantity=self.provisioned.amount * (to_age_ns - from_age_ns),
            cost_picousd=self.billed_picousd(to_age_ns) - self.billed_picousd(from_age_ns),
        )


def tariff(book: prices.PriceBook, provisioned: ledger.ProvisionedSku) -> Tariff:
    """Raises `SettingsError` when the book has no price for the sku: an unknown price is never zero."""
    price = book.price(provisioned.sku)
    if price is None:
        raise SettingsError(f"price book {book.name} has no price for '{provisioned.sku}'")
    rate: Fraction = price.rate * provisioned.amount
    return Tariff(provisioned, rate.numerator, rate.denominator)

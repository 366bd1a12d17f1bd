"""What one provisioned sku costs over a container's life, in whole pico-dollars that never drift.

The bill up to a moment is rounded once; an interval is the difference of two such bills. So intervals of any lengths add up to the
rounded bill of the whole, to the pico-dollar. A machine with one price is cut at a whole number of pico-dollars into its vCPUs and
its memory, so that both together are its price exactly.
"""

from fractions import Fraction

import msgspec

from gateway.contract import ledger, prices


class Tariff(msgspec.Struct, frozen=True):
    """A provisioned sku with its price: `numerator / denominator` pico-dollars per billed nanosecond of the container's life, or
    per request. Ages are counted in these.

    It is the part between the cuts `low` and `high` of `whole` equal parts of that price. A numerator of 0 says that the sku has
    no price: then it costs nothing that is known.
    """

    provisioned: ledger.ProvisionedSku
    numerator: int
    denominator: int
    low: int = 0
    high: int = 1
    whole: int = 1

    @property
    def is_priced(self) -> bool:
        return self.numerator > 0

    @property
    def rate(self) -> Fraction:
        """Pico-dollars per nanosecond for this part alone."""
        return Fraction(self.numerator * (self.high - self.low), self.denominator * self.whole)

    def billed_picousd(self, age_ns: int) -> int:
        """The bill for the first `age_ns` of the container's life, rounded half to even."""
        whole, rest = divmod(self.numerator * age_ns, self.denominator)
        return self._part(whole + (2 * rest > self.denominator or (2 * rest == self.denominator and whole % 2)))

    def covered_picousd(self, age_ns: int) -> int:
        """What the bill is at least at that age, without rounding up."""
        return self._part(self.numerator * age_ns // self.denominator)

    def covering_age_ns(self, picousd: int) -> int:
        """An age at which the bill has certainly reached this amount: the earliest, for a sku that is not cut. Unpriced: 0."""
        if not self.is_priced:
            return 0
        assert self.low == 0  # the only part that anybody gives receipts against
        whole_picousd = -(-picousd * self.whole // self.high)
        return -(-whole_picousd * self.denominator // self.numerator)

    def charge(
        self, from_age_ns: int, to_age_ns: int, beyond_age_ns: int | None = None, *, is_dated: bool = True
    ) -> ledger.Charge:
        """What the platform bills between two ages of the container; at its end also what it bills up to `beyond_age_ns`.

        `is_dated`: the interval's times say where its ages begin; else the charge does.
        """
        last_ns = to_age_ns if beyond_age_ns is None else beyond_age_ns
        assert 0 <= from_age_ns <= to_age_ns <= last_ns
        return ledger.Charge(
            sku=self.provisioned.sku,
            unit=self.provisioned.unit,
            quantity=self.provisioned.amount * (to_age_ns - from_age_ns),
            cost_picousd=self.billed_picousd(last_ns) - self.billed_picousd(from_age_ns),
            beyond=self.provisioned.amount * (last_ns - to_age_ns),
            since=0 if is_dated else from_age_ns,
        )

    def _part(self, picousd: int) -> int:
        return picousd * self.high // self.whole - picousd * self.low // self.whole


def tariff(book: prices.PriceBook, provisioned: ledger.ProvisionedSku) -> Tariff:
    """The sku at the book's price; at none when the book has none, which the caller must say aloud (`is_priced`)."""
    part = provisioned.part
    sku = part.sku if part else provisioned.sku
    price = book.price(sku, provisioned.priced_on)
    if price is None:
        return Tariff(provisioned, 0, 1)
    rate: Fraction = price.rate * (part.times if part else provisioned.amount)
    cuts = (part.low, part.high, part.whole) if part else (0, 1, 1)
    return Tariff(provisioned, rate.numerator, rate.denominator, *cuts)

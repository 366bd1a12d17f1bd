"""The price book: what is shipped is sound, and a broken one names its file and key."""

from fractions import Fraction
from pathlib import Path

import pytest

from gateway.contract import prices
from gateway.errors import SettingsError

BOOK = """schema_version = 1
currency = "USD"
region = "r"
platform = []
[[price]]
sku = "cpu"
unit = "vcpu-hour"
usd = "0.04048"
as_of = "2026-04-01"
source = "here"
"""


def book(text: str) -> prices.PriceBook:
    return prices.PriceBook(text.encode(), name="book.toml")


def test_the_shipped_book_prices_its_platforms() -> None:
    shipped = prices.load()
    for name in ("fargate-x86", "fargate-arm"):
        platform = shipped.platform(name)
        assert shipped.price(platform.vcpu_sku) is not None


def test_a_rate_is_exact() -> None:
    price = book(BOOK).price("cpu")
    assert price is not None
    assert price.rate * 1000 * 3600 * 10**9 == Fraction("0.04048") * 10**12  # one vCPU for one hour


def test_an_unknown_sku_has_no_price_rather_than_zero() -> None:
    assert book(BOOK).price("gpu") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('usd = "0.04048"', 'usd = "0"', "is zero"),
        ('usd = "0.04048"', 'usd = "-1"', r"usd"),
        ('usd = "0.04048"', "usd = 0.04048", r"usd"),
        ('unit = "vcpu-hour"', 'unit = "vcpu-second"', r"unit"),
        ('as_of = "2026-04-01"', 'as_of = "April"', r"as_of"),
        ('source = "here"', 'source = "here"\nvaild_to = "x"', r"vaild_to"),
        ('currency = "USD"', 'currency = "EUR"', r"currency"),
        ('region = "r"', "region = ", "Invalid value"),
    ],
)
def test_a_broken_book_names_file_and_key(old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"book\.toml: .*{message}"):
        book(BOOK.replace(old, new))


def test_a_sku_priced_twice_is_refused() -> None:
    twice = BOOK + BOOK[BOOK.index("[[price]]") :]
    with pytest.raises(SettingsError, match="sku 'cpu' is priced twice"):
        book(twice)


def test_a_platform_names_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no platform 'lambda'; it has: fargate-x86, fargate-arm"):
        prices.load().platform("lambda")
    with pytest.raises(SettingsError, match=r"nobook\.toml: No such file"):
        prices.load(tmp_path / "nobook.toml")


def test_a_book_that_old_ledgers_refer_to_still_reads() -> None:
    """Segments name the book they were priced with by this digest."""
    data = (Path(__file__).parent / "golden" / "prices-v1.toml").read_bytes()
    old = prices.PriceBook(data, name="prices-v1.toml")
    assert old.sha256 == "85bb76d037f03ac3b8c6a104fc29f20e80589258627fcbc8ac87d99d046d2b03"
    price = old.price("fargate-x86/memory")
    assert price is not None
    assert (price.usd, price.unit, price.as_of) == ("0.004445", "gb-hour", "2026-04-01")

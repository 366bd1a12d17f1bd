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
        ('usd = "0.04048"', 'usd = "-1"', r"price of 'cpu' is '-1'; usd is a decimal above zero"),
        ('usd = "0.04048"', 'usd = "1e-3"', r"price of 'cpu' is '1e-3'"),
        ('usd = "0.04048"', 'usd = "NaN"', r"price of 'cpu' is 'NaN'"),
        ('usd = "0.04048"', 'usd = "0.04\\n"', r"price of 'cpu' is '0\.04"),
        ('usd = "0.04048"', "usd = 0.04048", r"usd"),
        ('unit = "vcpu-hour"', 'unit = "vcpu-week"', r"unit"),
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


FIRST, LATER = BOOK[BOOK.index("[[price]]") :], BOOK[BOOK.index("[[price]]") :].replace("2026-04-01", "2026-07-01")


def test_the_price_of_a_day_is_that_of_its_validity() -> None:
    both = book(BOOK + 'until = "2026-06-01"\n' + LATER.replace("0.04048", "0.05"))
    prices_by_day = {day: both.price("cpu", day) for day in ("2026-01-01", "2026-05-31", "2026-06-01", "2026-07-01")}
    found = {day: price and price.usd for day, price in prices_by_day.items()}
    assert found == {"2026-01-01": "0.04048", "2026-05-31": "0.04048", "2026-06-01": None, "2026-07-01": "0.05"}
    newest = both.price("cpu")
    assert newest is not None
    assert newest.usd == "0.05"


@pytest.mark.parametrize("until", ["", 'until = "2026-07-02"\n'])
def test_two_prices_of_one_day_are_refused_by_name(until: str) -> None:
    with pytest.raises(
        SettingsError,
        match=r"sku 'cpu' is priced twice: \$0\.04048 from 2026-04-01 .* and \$0\.04048 from 2026-07-01 on",
    ):
        book(BOOK + until + LATER)


def test_a_price_that_ends_before_it_begins_or_on_no_day_is_refused() -> None:
    with pytest.raises(SettingsError, match="ends on 2026-04-01, not after 2026-04-01"):
        book(BOOK + 'until = "2026-04-01"\n')
    with pytest.raises(SettingsError, match="2026-02-30 is no day"):
        book(BOOK + 'until = "2026-02-30"\n')


def test_a_platform_without_a_price_is_unpriced_and_one_in_another_unit_is_refused() -> None:
    platform = '[[platform]]\nname = "p"\nvcpu_sku = "cpu"\nmemory_sku = "{}"\n'
    told = BOOK.replace("platform = []\n", "")
    assert book(told + platform.format("ram")).unpriced("p") == ("ram",)
    with pytest.raises(SettingsError, match="needs a price per gb-hour or gb-second for 'cpu', not per vcpu-hour"):
        book(told + platform.format("cpu")).platform("p")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('vcpu_sku = "cpu"', "needs either machine_sku or memory_sku"),
        ('memory_sku = "ram"', "bills a lifetime: it needs machine_sku, or vcpu_sku and memory_sku"),
        ('machine_sku = "box"\nmemory_sku = "ram"', "needs either machine_sku or memory_sku"),
        ('machine_sku = "box"\nrequest_sku = "calls"', "so it has no request_sku"),
        ('machine_sku = "box"\nminimum_ms = -1', "minimum_ms"),
    ],
)
def test_a_platform_that_bills_nothing_or_twice_is_refused(lines: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        book(BOOK.replace("platform = []\n", "") + f'[[platform]]\nname = "p"\n{lines}\n')


def test_every_shipped_book_is_sound_and_only_a_machine_of_ones_own_has_no_price() -> None:
    books = prices.shipped()
    assert {sku for each in books for known in each.platforms for sku in each.unpriced(known.name)} == {"machine"}
    assumed = {price.sku for each in books for known in each.platforms for price in each.assumed(known.name)}
    assert assumed == {f"fargate-spot-{arch}/{part}" for arch in ("x86", "arm") for part in ("vcpu", "memory")}


def test_a_book_for_a_newer_steelyard_says_so() -> None:
    with pytest.raises(SettingsError, match=r"book\.toml has schema_version 2; this Steelyard reads up to 1: upgrade"):
        book(BOOK.replace("schema_version = 1", "schema_version = 2") + 'added_later = "x"\n')


def test_a_sku_that_has_no_price_yet_is_refused_and_one_that_changes_is_not() -> None:
    prices.refuse_future(book(BOOK + 'until = "2026-07-01"\n' + LATER), "2026-05-01")
    with pytest.raises(SettingsError, match=r"the first price of 'cpu' is dated 2026-04-01, and today is 2026-03-31"):
        prices.refuse_future(book(BOOK), "2026-03-31")


def test_a_price_per_hour_by_setting_makes_a_book_of_its_own() -> None:
    shipped = prices.load()
    own = prices.with_machine(shipped, "0.12", on="2026-11-25")
    price = own.price("machine")
    assert price is not None
    assert (price.usd, price.source) == ("0.12", "setting accounting.usd_per_hour")
    assert own.sha256 != shipped.sha256
    for wrong in ("0", "-1", "1e3", 'x"\n'):
        with pytest.raises(SettingsError, match=r"with accounting\.usd_per_hour"):
            prices.with_machine(shipped, wrong, on="2026-11-25")

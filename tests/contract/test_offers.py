"""What `steelyard advise` compares: its prices are the price book's, in one place, and a wrong file names what is wrong."""

from fractions import Fraction
from pathlib import Path

import pytest

from gateway.contract import offers, prices
from gateway.errors import SettingsError

OWN = """region = "r"
[[offer]]
name = "box"
kind = "machine"
architecture = "x86"
vcpus = 2
memory_gb = "4"
{}
"""


def written(tmp_path: Path, lines: str) -> Path:
    path = tmp_path / "offers.toml"
    path.write_text(OWN.format(lines))
    return path


def test_a_price_is_the_books_and_follows_it() -> None:
    data = prices.load().data
    dearer = prices.PriceBook(data.replace(b'"0.04048"', b'"0.05048"').replace(b'"0.08925"', b'"0.1"'), name="b")
    before = {one.name: one for one in offers.load().offer}
    after = {one.name: one for one in offers.load(book=dearer).offer}
    assert Fraction(before["fargate-x86"].usd) == Fraction("0.04048") + 2 * Fraction("0.004445")
    assert Fraction(after["fargate-x86"].usd) - Fraction(before["fargate-x86"].usd) == Fraction("0.01")
    assert (before["c7i.large"].usd, after["c7i.large"].usd) == ("0.08925", "0.1")
    assert (before["lambda-arm"].usd, before["lambda-arm"].request_usd) == ("0.0000133334", "0.0000002")


def test_no_shipped_offer_has_a_number_of_its_own() -> None:
    """Except sizes, and how many vCPUs a GPU is taken for."""
    text = (Path(__file__).parents[2] / "infra/prices/advice-aws-us-east-1.toml").read_text()
    keys = {line.partition(" = ")[0] for line in text.splitlines()}
    assert not keys & {"usd", "spot_usd", "plan_usd", "request_usd"}


def test_assumed_spot_prices_stay_assumed() -> None:
    found = {one.name: one for one in offers.load().offer}
    assert found["fargate-x86"].spot_assumed
    assert not found["c7i.large"].spot_assumed
    assert found["p5.48xlarge"].plan_usd == "34.6752"
    assert found["c7g.large"].spot_usd is None


def test_an_offer_that_no_book_has_states_its_own_price(tmp_path: Path) -> None:
    [own] = offers.load(written(tmp_path, 'usd = "0.5"\nas_of = "2026-11-01"\nsource = "our host"')).offer
    assert (own.usd, own.source) == ("0.5", "our host")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('sku = "nobody"', "offer 'box': price book aws-us-east-1.toml has no price for 'nobody'"),
        ('sku = "lambda/requests"', "'lambda/requests' is sold per million-requests, not per hour"),
        ('sku = "c7i.large"\nspot = "c7i.large/sport"', "has no price for 'c7i.large/sport'"),
        ('platform = "fargate-x86"', "tasks and functions have a 'platform', machines a 'sku'"),
        ("", "needs one of 'platform', 'sku' and 'usd'"),
        ('sku = "c7i.large"\nusd = "1"', "needs one of 'platform', 'sku' and 'usd'"),
        ('sku = "c7i.large"\nspot_usd = "1"', "has the price book's prices"),
        ('usd = "0"\nas_of = "2026-11-01"\nsource = "x"', "above zero"),
        ('usd = "-1"\nas_of = "2026-11-01"\nsource = "x"', "usd"),
        ('usd = "1"', "'as_of' and 'source'"),
        ('sku = "c7i.large"\ncolour = "red"', "unknown key `$.offer"),
        ('sku = "c7i.large"\n[[offer]]\nname = "box"', "offers "),
    ],
)
def test_a_wrong_file_names_itself_and_what_is_wrong(lines: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        offers.load(written(tmp_path, lines))
    assert "offers.toml" in str(refused.value)
    assert message in str(refused.value)


def test_a_file_for_a_newer_steelyard_says_so(tmp_path: Path) -> None:
    path = tmp_path / "offers.toml"
    path.write_text('schema_version = 2\nregion = "r"\noffer = []\n')
    with pytest.raises(SettingsError, match="upgrade it first"):
        offers.load(path)

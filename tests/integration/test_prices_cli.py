"""`steelyard prices` on real stores: what it shows, what it refuses, and a pointer that moves by compare-and-swap."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.accounting import books
from gateway.cli.pricebook import prices as command
from gateway.contract import layout, prices
from gateway.contract.prices import PriceBook
from gateway.errors import PreconditionFailed, SettingsError
from gateway.objectstore.local import LocalStore
from tests.support.memorystore import MemoryStore

SHIPPED = prices.load()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def dearer(tmp_path: Path) -> Path:
    """The shipped book with Fargate's vCPU a tenth dearer, one sku less and one more, and one that no platform bills by."""
    text = SHIPPED.data.decode().replace('usd = "0.04048"', 'usd = "0.044528"')
    text = text.replace('sku = "g5.xlarge"', 'sku = "g5.2xlarge"')
    text = text.replace('vcpu_sku = "fargate-spot-x86/vcpu"', 'vcpu_sku = "fargate-spot-x86/core"')
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Not there yet."""
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    root.mkdir()
    return LocalStore(root)


def book(number: int) -> PriceBook:
    return PriceBook(SHIPPED.data + b"\n# %d\n" % number, name=f"{number}.toml")


def test_show_names_source_age_unit_and_platform(root: Path) -> None:
    shown = run("show", "--store", root)
    assert shown.exit_code == 0, shown.output
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("fargate-x86/memory")]
    assert "0.004445" in line
    assert "gb-hour" in line
    assert "2026-04-01" in line
    assert "fargate-x86 " in line
    assert "vantage.sh" in line
    assert "cloud-run-requests/vcpu" in shown.stdout
    [rule] = [line for line in shown.stdout.splitlines() if line.startswith("fargate-spot-arm ")]
    assert " ".join(rule.split()) == ("fargate-spot-arm its lifetime 1,000 ms 60 s -")
    [spot] = [line for line in shown.stdout.splitlines() if line.startswith("fargate-spot-arm/vcpu")]
    assert "0.012952 ASSUMED" in spot
    assert "no book was chosen" in shown.stderr


def test_check_compares_with_the_release_in_percent(dearer: Path) -> None:
    checked = run("check", dearer)
    assert checked.exit_code == 0, checked.output
    assert "4 differences" in checked.stdout
    assert "fargate-x86/vcpu: +10.00 %, $0.04048 per vcpu-hour (2026-04-01) -> $0.044528" in checked.stdout
    assert "g5.2xlarge: new" in checked.stdout
    assert "g5.xlarge: no longer priced" in checked.stdout
    assert "platform fargate-spot-x86: bills by another rule" in checked.stdout
    assert "fargate-spot-x86 is UNPRICED: this book has no price of today for fargate-spot-x86/core" in checked.stderr
    assert "the price of fargate-spot-arm/vcpu, $0.012952, is ASSUMED: changes by day and region" in checked.stderr


def test_check_says_that_a_price_ends(dearer: Path) -> None:
    of = 'as_of = "2026-04-01"'
    dearer.write_bytes(SHIPPED.data.replace(of.encode(), f'{of}\nuntil = "2026-08-01"'.encode(), 1))
    checked = run("check", dearer)
    assert "1 differences" in checked.stdout
    [line] = [line for line in checked.stdout.splitlines() if "fargate-x86/vcpu" in line]
    assert (
        line.strip() == "fargate-x86/vcpu: $0.04048 per vcpu-hour (2026-04-01) until 2026-08-01, before without an end"
    )
    assert "fargate-x86 is UNPRICED" in checked.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"0.04048"', '"0"', "is zero"),
        ('"0.04048"', '"-1"', "'fargate-x86/vcpu' is '-1'"),
        ("fargate-arm/vcpu", "c7i.large", "twice"),
        ("2026-08-11", "2999-08-11", "first price of 'c7i.large' is dated 2999-08-11"),
        ('unit = "gb-hour"', 'unit = "vcpu-hour"', "needs a price per gb-hour or gb-second"),
        ("schema_version = 1", "schema_version = 9", "upgrade it first"),
    ],
)
def test_a_book_that_is_not_sound_is_refused_and_stays_out_of_the_store(
    old: str, new: str, message: str, dearer: Path, root: Path
) -> None:
    dearer.write_bytes(SHIPPED.data.replace(old.encode(), new.encode()))
    for arguments in (("check", dearer), ("update", dearer, "--store", root)):
        refused = run(*arguments)
        assert isinstance(refused.exception, SettingsError)
        assert message in str(refused.exception)
    assert not root.exists()


def test_update_makes_it_current_and_says_what_changed(dearer: Path, root: Path) -> None:
    first = run("update", dearer, "--store", root, "--actor", "ann")
    assert first.exit_code == 0, first.output
    assert "fargate-x86/vcpu: +10.00 %" in first.stdout
    own = prices.load(dearer)
    assert (root / layout.price_book(own.sha256)).read_bytes() == own.data
    assert f"sha256 {own.sha256}" in run("show", "--store", root).stdout
    assert "current already" in run("update", dearer, "--store", root).stdout

    back = dearer.with_name("back.toml")
    back.write_bytes(SHIPPED.data)
    assert "fargate-x86/vcpu: -9.09 %" in run("update", back, "--store", root).stdout
    pointer = (root / layout.current_prices()).read_text()
    assert own.sha256 in pointer  # where it came from


async def test_a_container_is_billed_by_file_then_store_then_release(dearer: Path, store: LocalStore) -> None:
    terms = {"usd_per_hour": "", "platform": "fargate-x86", "day": "2026-11-25"}
    assert (await books.chosen(store, path="", **terms)).sha256 == SHIPPED.sha256
    await books.make_current(store, book(1), now_ns=1, actor="ann")
    assert (await books.chosen(store, path="", **terms)).sha256 == book(1).sha256
    assert (await books.chosen(store, path=str(dearer), **terms)).sha256 == prices.load(dearer).sha256
    own = await books.chosen(store, path="", usd_per_hour="0.5", platform="machine", day="2026-11-25")
    assert own.unpriced("machine") == ()
    with pytest.raises(
        SettingsError, match=r"usd_per_hour prices the platform 'machine', and accounting.platform is 'fargate-x86'"
    ):
        await books.chosen(store, path="", **terms | {"usd_per_hour": "0.5"})
    with pytest.raises(SettingsError, match="no price book of this release has a platform 'mainframe'"):
        await books.chosen(store, path="", **terms | {"platform": "mainframe"})


async def test_a_current_book_that_is_no_use_does_not_stop_a_start(
    store: LocalStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    terms = {"path": "", "usd_per_hour": "", "day": "2026-11-25"}
    await books.make_current(store, book(1), now_ns=1, actor="ann")
    assert (await books.chosen(store, platform="cloud-run-requests", **terms)).name == "gcp-tier1.toml"
    (root / layout.price_book(book(1).sha256)).write_bytes(SHIPPED.data)
    assert (await books.chosen(store, platform="fargate-x86", **terms)).sha256 == SHIPPED.sha256
    assert "is damaged" in caplog.text
    (root / layout.current_prices()).write_text("{")
    assert (await books.chosen(store, platform="fargate-x86", **terms)).sha256 == SHIPPED.sha256


async def test_of_many_updates_at_once_one_is_current_and_none_is_lost_unseen() -> None:
    """Each that succeeds saw exactly the one before it: the previous digests form one chain."""
    store = MemoryStore()
    moves = await asyncio.gather(
        *(books.make_current(store, book(n), now_ns=n, actor="ann") for n in range(4)), return_exceptions=True
    )
    done = [move for move in moves if isinstance(move, books.Moved)]
    assert all(isinstance(move, books.Moved | PreconditionFailed) for move in moves)
    previous = {move.current.sha256: move.current.previous_sha256 for move in done}
    current = await books.current(store)
    assert current is not None
    walked, sha256 = 0, current.sha256
    while sha256:
        walked, sha256 = walked + 1, previous[sha256]
    assert walked == len(done) >= 1

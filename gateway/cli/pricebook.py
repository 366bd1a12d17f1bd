"""`steelyard prices`: what containers are billed by, whether a book is sound, and which one new containers use."""

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options, pricediff
from gateway.contract.prices import Platform, PriceBook, load, refuse_future, shipped

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.accounting.books import Moved
    from gateway.objectstore.protocol import ObjectStore

STALE_DAYS = 365
"""List prices change about once a year; older ones are shown as old, not refused."""

book_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group
def prices() -> None:
    """The price book: list prices with source and date, and how platforms bill."""


@prices.command
@options.store
@click.option("--book", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="This file instead.")
def show(store: str, book: Path | None) -> None:
    """Prices with unit, source and age, and the platforms that bill by them.

    Of the store's current book, or where none was chosen of those that came with this release.
    """
    books = (load(book),) if book else _used(store)
    console = options.console()
    for each in books:
        _show(each, console)


@prices.command
@book_file
def check(file: Path) -> None:
    """Whether a price book is sound, and how it differs from the one of this release.

    A book that is not ends with an error that names what is wrong.
    """
    book = _sound(file)
    _say_unpriced(book)
    _say_assumed(book)
    _say_differences(_like(book), book)
    click.echo(f"{file} is sound: {len(book.prices):,} prices, {len(book.platforms):,} platforms, sha256 {book.sha256}")


@prices.command
@book_file
@options.store
@options.actor
def update(file: Path, store: str, actor: str) -> None:
    """Make this price book the one that new containers are billed by. Running ones keep theirs."""
    from gateway.accounting import books

    book = _sound(file)

    async def move(opened: "ObjectStore") -> "tuple[Moved, PriceBook]":
        moved = await books.make_current(opened, book, now_ns=time.time_ns(), actor=actor)
        return moved, await books.stored(opened, moved.before) if moved.before else _like(book)

    moved, before = options.with_store(store, move, create=True)
    _say_unpriced(book)
    _say_assumed(book)
    if moved.before is moved.current:
        click.echo(f"{book.sha256} is current already, since {_moment(moved.current.since_ns)}")
        return
    _say_differences(before, book)
    click.echo(f"current for containers that start from now on: {book.name}, sha256 {book.sha256}")


def _sound(file: Path) -> PriceBook:
    book = load(file)
    for platform in book.platforms:
        book.platform(platform.name)
    refuse_future(book, f"{datetime.now(UTC):%Y-%m-%d}")
    return book


def _used(store: str) -> tuple[PriceBook, ...]:
    from gateway.accounting import books
    from gateway.errors import BucketNotFound

    try:
        current = options.with_store(store, books.current)
    except BucketNotFound:
        current = None
    if current is None:
        click.echo(f"no book was chosen in {store}; these came with this release", err=True)
    return (current,) if current else shipped()


def _show(book: PriceBook, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    today = datetime.now(UTC).date()
    console.print(Text(f"{book.name} ({book.region}), sha256 {book.sha256}"))
    table = Table(box=None, pad_edge=False)
    for heading in ("sku", "USD", "per", "of", "age", "until", "platforms", "source"):
        table.add_column(heading, justify="right" if heading in {"USD", "age"} else "left", no_wrap=heading != "source")
    for price in book.prices:
        usd = price.usd + (" ASSUMED" if price.assumed else "")
        days = (today - date.fromisoformat(price.as_of)).days
        age = f"{days} d" + (" OLD" if days > STALE_DAYS else "")
        users = ", ".join(known.name for known in book.platforms if price.sku in {sku for sku, _ in known.skus})
        cells = (price.sku, usd, price.unit, price.as_of, age, price.until or "-", users or "-", price.source)
        table.add_row(*map(Text, cells))
    console.print(table)
    console.print()
    rules = Table(box=None, pad_edge=False)
    for heading in ("platform", "bills", "in steps of", "at least", "without a price"):
        rules.add_column(heading, no_wrap=True)
    for known in book.platforms:
        rules.add_row(*map(Text, (known.name, *_rule(known), ", ".join(book.unpriced(known.name)) or "-")))
    console.print(rules)
    console.print()


def _rule(platform: Platform) -> tuple[str, str, str]:
    what = {"lifetime": "its lifetime", "invocations": "each invocation", "requests": "while it has requests"}
    step = f"{platform.granularity_ms:,} ms" if platform.granularity_ms else "1 ns"
    return what[platform.billed], step, f"{platform.minimum_ms / 1000:g} s" if platform.minimum_ms else "-"


def _like(book: PriceBook) -> PriceBook:
    """The shipped book of the same region, else the first."""
    known = shipped()
    return next((each for each in known if each.region == book.region), known[0])


def _say_differences(before: PriceBook, after: PriceBook) -> None:
    lines = pricediff.words(before, after)
    click.echo(f"against {before.name} (sha256 {before.sha256[:12]}): {len(lines):,} differences")
    for line in lines:
        click.echo(f"  {line}")


def _say_unpriced(book: PriceBook) -> None:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for known in book.platforms:
        if missing := book.unpriced(known.name, today):
            skus = ", ".join(missing)
            click.echo(f"note: platform {known.name} is UNPRICED: this book has no price of today for {skus}", err=True)


def _say_assumed(book: PriceBook) -> None:
    for price in book.prices:
        if price.assumed:
            click.echo(f"note: the price of {price.sku}, ${price.usd}, is ASSUMED: {price.assumed}", err=True)


def _moment(at_ns: int) -> str:
    from gateway.wording import moment

    return moment(at_ns)

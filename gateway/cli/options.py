"""Options that several commands share, and a store that is open while a command asks it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.contract import layout
from gateway.whoami import user_name

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.objectstore.protocol import ObjectStore

T = TypeVar("T")

DEFAULT_STORE = "./.steelyard/store"

STORE_HELP = "Object store: a folder, file:///path, or s3://bucket/prefix.  [env: STEELYARD_STORE]"


store = click.option(
    "--store",
    envvar="STEELYARD_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    metavar="URL",
    help=STORE_HELP,
)

alias = click.option("--alias", default=layout.CHAMPION, show_default=True, help="The name that callers follow.")
reason = click.option("--reason", default="", help="Why, for the history.")
actor = click.option("--actor", default=user_name, metavar="NAME", help="Who decides.  [default: your user name]")


def console() -> "Console":
    """Standard output; in a pipe nothing needs to fit, so columns keep their width."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


@contextlib.contextmanager
def console_to(out: Path | None) -> "Iterator[Console]":
    """Standard output, or a file of plain text."""
    if out is None:
        yield console()
        return
    from rich.console import Console

    try:
        with out.open("w") as file:
            yield Console(file=file, highlight=False, width=1000)
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error


def ledger_folder(opened: "ObjectStore", cache: Path | None) -> Path:
    """Where copies of this store's ledger are kept."""
    from gateway.reports.sync import default_folder

    return cache or default_folder(opened.url, os.environ)


def with_store(url: str, ask: "Callable[[ObjectStore], Awaitable[T]]", *, create: bool = False) -> T:
    """What `ask` finds in the store at `url`. `create`: as `open_store`'s, for who writes."""
    from gateway.objectstore.opening import open_store

    async def asked() -> T:
        async with contextlib.aclosing(open_store(url, create=create)) as opened:
            return await ask(opened)

    return asyncio.run(asked())

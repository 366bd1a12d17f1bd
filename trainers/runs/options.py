"""What the trainers' commands share: options, a console, an open store. The twin of `gateway.cli.options`.

Trainers may not import that one: the two halves are installed separately.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from trainers.errors import TrainerError

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.objectstore.protocol import ObjectStore

T = TypeVar("T")

DEFAULT_STORE = "./.steelyard/store"

store = click.option(
    "--store",
    envvar="STEELYARD_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    metavar="URL",
    help="Object store: a folder, file:///path, or s3://bucket/prefix.  [env: STEELYARD_STORE]",
)
form = click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json")),
    default="table",
    show_default=True,
    help="json has every figure exactly.",
)


def console() -> "Console":
    """Standard output; in a pipe nothing needs to fit, so columns keep their width."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000)


def with_store(url: str, ask: "Callable[[ObjectStore], Awaitable[T]]") -> T:
    """What `ask` finds in the store at `url`. A trainer's error becomes the command's."""
    from gateway.objectstore.opening import open_store

    async def asked() -> T:
        async with contextlib.aclosing(open_store(url)) as opened:
            return await ask(opened)

    try:
        return asyncio.run(asked())
    except TrainerError as error:
        raise click.ClickException(str(error)) from error

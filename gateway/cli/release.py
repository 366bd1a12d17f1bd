"""The `steelyard models` commands that decide which version answers: promote, canary, shadow, rollback.

Each records one decision in the store; running gateways follow it within their poll interval (`repository.poll_s`).
"""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli import options
from gateway.contract.registry import WHOLE_BP

if TYPE_CHECKING:
    from gateway.contract.registry import Promotion
    from gateway.objectstore.protocol import ObjectStore
    from gateway.registry.releasing import Author


Command = TypeVar("Command", bound=Callable[..., None])


class Percent(click.ParamType[int]):
    """A share in percent with at most two decimals, as basis points."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            share_bp = float(str(value).removesuffix("%")) * WHOLE_BP / 100
        except ValueError:
            self.fail(f"'{value}' is not a number of percent", param, ctx)
        if not 0 <= share_bp <= WHOLE_BP or abs(share_bp - round(share_bp)) > 1e-6:
            self.fail(f"'{value}' is not between 0 and 100 with at most two decimals", param, ctx)
        return round(share_bp)


def decision(command: Command) -> Command:
    """The options of every decision, in the order that help shows them."""
    for option in (options.store, options.actor, options.reason, options.alias):
        command = option(command)
    return command


@click.command
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@decision
def promote(name: str, version: int, alias: str, reason: str, actor: str, store: str) -> None:
    """Let VERSION answer as the champion of an alias. Its own canary ends; other canaries and the shadow stay."""
    from gateway.registry import releasing

    _decide(
        store, lambda s: releasing.promote(s, model=name, alias=alias, version=version, author=_author(actor, reason))
    )


@click.command
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@click.option(
    "--percent", type=Percent(), required=True, metavar="P", help="Its share of the requests; 0 ends the canary."
)
@decision
def canary(name: str, version: int, percent: int, alias: str, reason: str, actor: str, store: str) -> None:
    """Let VERSION answer a share of an alias's requests. A caller's key stays with one version."""
    from gateway.registry import releasing

    author = _author(actor, reason)
    _decide(
        store,
        lambda s: releasing.canary(s, model=name, alias=alias, version=version, weight_bp=percent, author=author),
    )


@click.command
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@click.option("--off", is_flag=True, help="End it.")
@click.option(
    "--percent", type=Percent(), default="100", show_default=True, metavar="P", help="Of the champion's requests."
)
@decision
def shadow(name: str, version: int, off: bool, percent: int, alias: str, reason: str, actor: str, store: str) -> None:
    """Run VERSION beside the champion of an alias; its answers are compared (GET /v1/releases) and never returned."""
    from gateway.registry import releasing

    share_bp, author = 0 if off else percent, _author(actor, reason)
    _decide(
        store,
        lambda s: releasing.shadow(s, model=name, alias=alias, version=version, sample_bp=share_bp, author=author),
    )


@click.command
@click.argument("name")
@click.option("--to", type=click.IntRange(1), metavar="GENERATION", help="As it was then; see `models history`.")
@decision
def rollback(name: str, to: int | None, alias: str, reason: str, actor: str, store: str) -> None:
    """Bring an alias back to what it was before, canaries and shadow included. Again goes further back."""
    from gateway.registry import releasing

    _decide(store, lambda s: releasing.rollback(s, model=name, alias=alias, to=to, author=_author(actor, reason)))


@click.command
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.store
def repair(names: tuple[str, ...], store: str) -> None:
    """Bring aliases back to what the log decided, after a bucket was restored. Without NAME those of all models."""
    from gateway.cli import releaseview
    from gateway.registry import releasing
    from gateway.registry.reading import Registry

    async def bring_back(opened: "ObjectStore") -> "list[Promotion]":
        wanted = names or tuple(await Registry(opened).names())
        return [entry for name in wanted for entry in await releasing.repair(opened, model=name)]

    entries = options.with_store(store, bring_back)
    for entry in entries:
        click.echo(f"alias '{entry.alias}' of model '{entry.model}': {releaseview.sentence(entry)}")
    if not entries:
        click.echo("the store holds no decision about an alias")


COMMANDS = (promote, canary, shadow, rollback, repair)


def _author(actor: str, reason: str) -> "Author":
    from gateway.registry.releasing import Author

    return Author(actor=actor, reason=reason, now_ns=time.time_ns())


def _decide(store: str, decide: "Callable[[ObjectStore], Awaitable[Promotion]]") -> None:
    from gateway.cli import releaseview

    entry = options.with_store(store, decide)
    click.echo(
        f"alias '{entry.alias}' of model '{entry.model}': {releaseview.sentence(entry)} (generation {entry.generation})"
    )

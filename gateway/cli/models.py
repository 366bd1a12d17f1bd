"""`steelyard models`: what is published in a store and who answers; the commands that change it are in `gateway.cli.release`."""

import asyncio
from typing import TYPE_CHECKING

import click

from gateway.cli import options, release
from gateway.cli.download import download
from gateway.cli.signers import public_keys, signers
from gateway.contract.manifest import Manifest

if TYPE_CHECKING:
    from gateway.contract.registry import Promotion
    from gateway.objectstore.protocol import ObjectStore


@click.group(invoke_without_command=True)
@options.store
@click.pass_context
def models(ctx: click.Context, store: str) -> None:
    """List published models, show and compare versions, decide which version answers."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, store=store)


for command in (download, *release.COMMANDS):
    models.add_command(command)


@models.command("list")
@options.store
def listing(store: str) -> None:
    """Every model: who answers for each of its aliases, and its versions."""
    from gateway.cli import releaseview

    rows = options.with_store(store, _listing)
    if not rows:
        click.echo(f"nothing is published in {store}; try: steelyard train flights --store {store}")
        return
    options.console().print(releaseview.models(rows))


@models.command
@click.argument("name")
@click.option("--version", default="champion", show_default=True, help="A version's number, or an alias.")
@public_keys
@options.store
def show(name: str, version: str, public_keys: tuple[str, ...], store: str) -> None:
    """What one version is: variants, measured metrics, gates, lineage and cost, and who signed it."""
    from gateway.cli import manifestview
    from gateway.registry.reading import Registry

    async def read(opened: "ObjectStore") -> tuple[int, Manifest, str]:
        registry = Registry(opened)
        number, sha256 = await registry.resolve(name, version)
        manifest = await registry.manifest(name, sha256)
        return number, manifest, await signers(registry, name, sha256, public_keys)

    number, manifest, signed = options.with_store(store, read)
    manifestview.render(options.console(), number, manifest, signed)


@models.command
@click.argument("a", metavar="NAME[@VERSION]")
@click.argument("b", metavar="[NAME@]VERSION")
@options.store
def diff(a: str, b: str, store: str) -> None:
    """What differs between two versions: variants, sizes, metrics, gates, signature, lineage.

    \b
    steelyard models diff flights 4            the champion against version 4
    steelyard models diff flights@3 4
    steelyard models diff flights@3 delays@1
    """
    from gateway.cli import manifestdiff

    name, version = _reference(a)
    other, other_version = _reference(b) if "@" in b else (name, b)

    async def both(opened: "ObjectStore") -> tuple[tuple[int, Manifest], tuple[int, Manifest]]:
        return await _manifest(opened, name, version), await _manifest(opened, other, other_version)

    manifestdiff.render(options.console(), *options.with_store(store, both))


@models.command
@click.argument("name")
@click.option("--alias", help="Decisions about this alias only.")
@options.store
def history(name: str, alias: str | None, store: str) -> None:
    """Every decision about a model's aliases, the newest first: who made it, when and why."""
    from gateway.cli import releaseview
    from gateway.errors import ModelNotFound
    from gateway.registry.reading import Registry

    async def read(opened: "ObjectStore") -> "list[Promotion]":
        registry = Registry(opened)
        entries = await registry.history(name, alias)
        if not entries and alias is not None and await registry.versions(name):
            aliases = ", ".join(await registry.aliases(name)) or "none"
            raise ModelNotFound(f"model '{name}' has no decision about an alias '{alias}'; aliases: {aliases}")
        if not entries:
            await registry.resolve(name)  # says what there is
        return entries

    options.console().print(releaseview.history(options.with_store(store, read)))


def _reference(text: str) -> tuple[str, str]:
    name, _, version = text.partition("@")
    return name, version or "champion"


async def _listing(store: "ObjectStore") -> "list[tuple[str, list[Promotion], list[int]]]":
    """Every model, what its aliases say, and its versions."""
    from gateway.registry.reading import READS_AT_ONCE, Registry

    registry, slots = Registry(store), asyncio.Semaphore(READS_AT_ONCE)

    async def row(name: str) -> "tuple[str, list[Promotion], list[int]]":
        async with slots:
            aliases = [(await registry.alias(name, alias)).promotion for alias in await registry.aliases(name)]
            return name, aliases, await registry.versions(name)

    return list(await asyncio.gather(*map(row, await registry.names())))


async def _manifest(store: "ObjectStore", name: str, version: str) -> tuple[int, Manifest]:
    from gateway.registry.reading import Registry

    registry = Registry(store)
    number, sha256 = await registry.resolve(name, version)
    return number, await registry.manifest(name, sha256)

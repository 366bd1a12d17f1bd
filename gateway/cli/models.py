"""`steelyard models`: what is published in a store."""

import asyncio

import click

from gateway.cli import options
from gateway.contract.manifest import Manifest


@click.group(invoke_without_command=True)
@options.store
@click.pass_context
def models(ctx: click.Context, store: str) -> None:
    """List published models, or show one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, store=store)


@models.command("list")
@options.store
def listing(store: str) -> None:
    """Every model, the version its champion alias answers with, and how many versions there are."""
    rows = asyncio.run(_listing(store))
    if not rows:
        click.echo(f"nothing is published in {store}; try: steelyard train flights --store {store}")
    for name, champion, versions in rows:
        click.echo(f"{name:<24} champion {champion:<6} versions {versions}")


@models.command
@click.argument("name")
@click.option("--version", "number", type=click.IntRange(1), help="A version; the champion when left out.")
@options.store
def show(name: str, number: int | None, store: str) -> None:
    """What one version is: variants, measured metrics, gates, lineage and cost."""
    from rich.console import Console

    from gateway.cli import manifestview

    version, manifest = asyncio.run(_manifest(store, name, number))
    manifestview.render(Console(), version, manifest)


async def _listing(url: str) -> list[tuple[str, str, str]]:
    from gateway.errors import ModelNotFound
    from gateway.objectstore.opening import open_store
    from gateway.registry.reading import Registry

    store = open_store(url)
    try:
        registry = Registry(store)
        rows = []
        for name in await registry.names():
            try:
                champion = str((await registry.alias(name)).promotion.version)
            except ModelNotFound:
                champion = "none"
            rows.append((name, champion, ", ".join(map(str, await registry.versions(name)))))
        return rows
    finally:
        await store.aclose()


async def _manifest(url: str, name: str, number: int | None) -> tuple[int, Manifest]:
    from gateway.objectstore.opening import open_store
    from gateway.registry.reading import Registry

    store = open_store(url)
    try:
        registry = Registry(store)
        if number is None:
            promotion = (await registry.alias(name)).promotion
            return promotion.version, await registry.manifest(name, promotion.manifest_sha256)
        record = await registry.version(name, number)
        return number, await registry.manifest(name, record.manifest_sha256)
    finally:
        await store.aclose()

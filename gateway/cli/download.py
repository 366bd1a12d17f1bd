"""`steelyard models download`: one version as a folder, with who signed it; for tools that read files and know no store."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options
from gateway.cli.signers import public_keys, signers

if TYPE_CHECKING:
    from gateway.objectstore.protocol import ObjectStore


@click.command
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--version", default="champion", show_default=True, help="A version's number, or an alias.")
@public_keys
@options.store
def download(name: str, folder: Path, version: str, public_keys: tuple[str, ...], store: str) -> None:
    """Fetch one version of NAME into the new folder DIR, every digest verified.

    Signatures go beside the folder, as DIR.<key id>.sig: sigstore bundles, which OpenSSF's own command verifies too.

    \b
    model_signing verify key DIR --signature DIR.<key id>.sig --public_key FILE
    """
    from gateway.registry import fetching
    from gateway.registry.reading import Registry

    async def fetched(opened: "ObjectStore") -> tuple[str, dict[Path, bytes]]:
        registry = Registry(opened)
        number, sha256 = await registry.resolve(name, version)
        signed = await signers(registry, name, sha256, public_keys)
        manifest = await fetching.fetch(opened, name, sha256, folder)
        beside = {}
        for key_id in await registry.signers(name, sha256):
            bundle = await registry.signature(name, sha256, key_id)
            beside[folder.with_name(f"{folder.name}.{key_id}.sig")] = bundle or b""
        size = sum(file.size for file in manifest.files)
        return f"{name}@{number} is in {folder}: {len(manifest.files)} files, {size:,} bytes; {signed}", beside

    said, beside = options.with_store(store, fetched)
    for path, bundle in beside.items():
        path.write_bytes(bundle)
    click.echo(said)
    for path in beside:
        click.echo(f"signature: {path}")

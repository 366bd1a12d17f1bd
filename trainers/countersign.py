"""`steelyard sign`: adds a key's signature to a version that is published already, as a new key needs before it takes over."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import click

from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import fetching
from gateway.registry.reading import Registry
from trainers import signing
from trainers.errors import SpecError
from trainers.runs.options import store as store_option


@click.command
@click.argument("name")
@click.argument("version")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help=f"Private key, EC over P-256, PEM. {signing.PASSPHRASE} opens it if it is encrypted.",
)
@store_option
def sign(name: str, version: str, key_file: Path, store: str) -> None:
    """Sign VERSION (a number or an alias) of the published model NAME.

    Every file is fetched, and signed only if it is what was published. Signatures by other keys stay. Make a key, and its public
    half, which gateways are given as repository.public_keys:

    \b
    openssl ecparam -name prime256v1 -genkey -noout -out sign.pem
    openssl pkey -in sign.pem -pubout -out sign.pub
    """
    try:
        signer = signing.signer(key_file)
    except SpecError as error:
        raise click.UsageError(str(error)) from error

    async def opened() -> tuple[int, bool]:
        async with contextlib.aclosing(open_store(store)) as found:
            return await countersign(found, name, version, signer)

    number, is_new = asyncio.run(opened())
    click.echo(f"{name}@{number} is {'now' if is_new else 'already'} signed by key {signer.key_id}")


async def countersign(store: ObjectStore, model: str, version: str, signer: signing.Signer) -> tuple[int, bool]:
    """The version's number, and whether this key had not signed it before.

    Raises `ModelNotFound`, an `ArtifactError` when the store does not hold what was published, or a store error.
    """
    number, manifest_sha256 = await Registry(store).resolve(model, version)
    with tempfile.TemporaryDirectory(prefix="steelyard-sign-") as temporary:
        folder = Path(temporary) / model
        await fetching.fetch(store, model, manifest_sha256, folder)
        return number, await signing.put(store, folder, signer)

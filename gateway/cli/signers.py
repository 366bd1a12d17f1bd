"""Who signed a version, for the `steelyard models` commands, and the option that makes them ask a key instead of believing."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.registry.reading import Registry

public_keys = click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    metavar="FILE",
    help="Fail unless this key (PEM) signed it; repeated, one of them.",
)


async def signers(registry: "Registry", name: str, manifest_sha256: str, public_keys: tuple[str, ...]) -> str:
    """In words. Raises `SignatureInvalid` when public keys are given and none of them signed this version."""
    verified = ""
    if public_keys:
        from gateway.registry.signatures import PinnedKeys

        manifest = await registry.manifest(name, manifest_sha256)
        verified = await PinnedKeys(public_keys).signer(registry, manifest, manifest_sha256)
    found = [
        f"{key_id} ({'verified' if key_id == verified else 'not verified'})"
        for key_id in await registry.signers(name, manifest_sha256)
    ]
    return f"signed by {', '.join(found)}" if found else "unsigned"

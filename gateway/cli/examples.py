"""The held-out rows that artifacts carry: what commands show and send as real requests."""

from typing import TYPE_CHECKING

from gateway.contract.manifest import Examples

if TYPE_CHECKING:
    from gateway.objectstore.protocol import ObjectStore


async def of(store: "ObjectStore", model: str) -> Examples | None:
    """Those of the version that answers for this model, or None when it came without."""
    from gateway.contract import codec, layout
    from gateway.registry.reading import Registry

    registry = Registry(store)
    promotion = (await registry.alias(model)).promotion
    manifest = await registry.manifest(model, promotion.manifest_sha256)
    file = next((file for file in manifest.files if file.role == "examples"), None)
    if file is None:
        return None
    return codec.decode((await store.get(layout.blob(model, file.sha256))).body, Examples)

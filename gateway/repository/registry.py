"""Reads what is published: names, versions, aliases, manifests. Never writes; `trainers.publish` does.

Every call goes to the object store; `gateway.repository.residents` decides how often.
"""

import msgspec

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.contract.registry import Promotion, VersionRecord
from gateway.contract.words import Name
from gateway.errors import DigestMismatch, ManifestInvalid, ModelNotFound, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore


class AliasState(msgspec.Struct, frozen=True):
    """An alias as read, with the etag that makes the next look cheap."""

    promotion: Promotion
    etag: str


class Registry:
    """The published models of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def names(self) -> list[str]:
        """Every model that has at least one object, in order."""
        return await self._store.folders(layout.MODELS)

    async def versions(self, model: str) -> list[int]:
        """Published version numbers, ascending; empty for an unknown model."""
        prefix = layout.versions(model)
        keys = [info.key async for info in self._store.list(prefix)]
        return sorted(int(key.removeprefix(prefix).removesuffix(".json")) for key in keys)

    async def alias(self, model: str, name: str = layout.CHAMPION) -> AliasState:
        """Which version answers. Raises `ModelNotFound` naming what is published."""
        if not is_name(model):
            raise await self._unknown(model)
        try:
            stored = await self._store.get(layout.alias(model, name))
        except ObjectNotFound:
            raise await self._unknown(model) from None
        return _alias_state(stored.body, stored.etag, model)

    async def alias_if_changed(self, model: str, etag: str, name: str = layout.CHAMPION) -> AliasState | None:
        """The alias when it has moved since `etag`, else None."""
        stored = await self._store.get_if_changed(layout.alias(model, name), etag)
        return None if stored is None else _alias_state(stored.body, stored.etag, model)

    async def version(self, model: str, number: int) -> VersionRecord:
        """Raises `ModelNotFound` naming the versions there are."""
        if not is_name(model):
            raise await self._unknown(model)
        try:
            stored = await self._store.get(layout.version(model, number))
        except ObjectNotFound:
            raise await self._unknown(model, number) from None
        return codec.decode(stored.body, VersionRecord, what=f"version {number} of model '{model}'")

    async def manifest(self, model: str, sha256: str) -> Manifest:
        """The manifest with this digest, verified. Raises an `ArtifactError`."""
        try:
            stored = await self._store.get(layout.manifest(model, sha256))
        except ObjectNotFound:
            raise ManifestInvalid(f"model '{model}': manifest {sha256[:12]} is missing from the store") from None
        if codec.sha256(stored.body) != sha256:
            raise DigestMismatch(f"model '{model}': the bytes of manifest {sha256[:12]} do not have this digest")
        manifest = codec.decode(stored.body, Manifest, what=f"the manifest of model '{model}'")
        if manifest.model != model:
            raise ManifestInvalid(f"model '{model}': its manifest is for '{manifest.model}'")
        return manifest

    async def _unknown(self, model: str, number: int | None = None) -> ModelNotFound:
        versions = await self.versions(model) if is_name(model) else []
        if versions and number is not None:
            return ModelNotFound(f"model '{model}' has no version {number}; published: {', '.join(map(str, versions))}")
        if versions:
            return ModelNotFound(f"model '{model}' has versions but none is promoted to '{layout.CHAMPION}' yet")
        names = await self.names()
        published = f"published: {', '.join(names[:20])}" if names else "nothing is published yet"
        return ModelNotFound(f"no model is named '{model[:64]}'; {published}")


def is_name(text: str) -> bool:
    """Whether this can be a model's name at all; anything else never reaches a key."""
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return False
    return True


def _alias_state(body: bytes, etag: str, model: str) -> AliasState:
    promotion = codec.decode(body, Promotion, what=f"the alias of model '{model}'")
    if promotion.model != model:
        raise ManifestInvalid(f"model '{model}': its alias is for '{promotion.model}'")
    return AliasState(promotion, etag)

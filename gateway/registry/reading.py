"""Reads what is published: names, versions, aliases, manifests, history. Never writes: `gateway.registry.releasing` does.

Every call goes to the object store; `gateway.repository` decides how often.
"""

import asyncio

import msgspec

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.contract.registry import Promotion, VersionRecord
from gateway.contract.words import KeyId, fits, is_name
from gateway.errors import DigestMismatch, ManifestInvalid, ModelNotFound, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore

NUMBER_DIGITS_MAX = 9
READS_AT_ONCE = 16
"""Of small objects, for people who wait: half of the connections that the S3 store keeps."""

SIGNATURE_BYTES_MAX = 256 << 10
"""Room for the names and digests of 800 files; whoever can write to the store must not fill the memory of all gateways."""


class AliasState(msgspec.Struct, frozen=True):
    """An alias as read, with the etag that makes the next look cheap."""

    promotion: Promotion
    etag: str


class Registry:
    """The published models of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def names(self) -> list[str]:
        """Every model that has at least one object, in order. What else lies there can be no model and is passed over."""
        return [name for name in await self._store.folders(layout.MODELS) if is_name(name)]

    async def versions(self, model: str) -> list[int]:
        """Published version numbers, ascending (the store lists 10 before 2); empty for an unknown model."""
        return sorted(int(name) for name in await self._stems(layout.versions(model)) if is_number(name))

    async def aliases(self, model: str) -> list[str]:
        """The names that answer with some version; empty for an unknown model."""
        return [name for name in await self._stems(layout.aliases(model)) if is_name(name)]

    async def alias(self, model: str, name: str = layout.CHAMPION) -> AliasState:
        """Which versions answer. Raises `ModelNotFound` naming what is published."""
        if not is_name(model) or not is_name(name):
            raise await self._unknown(model, name)
        try:
            stored = await self._store.get(layout.alias(model, name))
        except ObjectNotFound:
            raise await self._unknown(model, name) from None
        return _alias_state(stored.body, stored.etag, model)

    async def alias_if_changed(self, model: str, etag: str, name: str = layout.CHAMPION) -> AliasState | None:
        """The alias when it has moved since `etag`, else None: on S3 one GET without a body."""
        stored = await self._store.get_if_changed(layout.alias(model, name), etag)
        return None if stored is None else _alias_state(stored.body, stored.etag, model)

    async def version(self, model: str, number: int) -> VersionRecord:
        """Raises `ModelNotFound` naming the versions there are."""
        if not is_name(model):
            raise await self._unknown(model, str(number))
        try:
            stored = await self._store.get(layout.version(model, number))
        except ObjectNotFound:
            raise await self._unknown(model, str(number)) from None
        return codec.decode(stored.body, VersionRecord, what=f"version {number} of model '{model}'")

    async def resolve(self, model: str, version: str = layout.CHAMPION) -> tuple[int, str]:
        """A version's number and manifest digest, asked for by number or by alias. Raises `ModelNotFound`."""
        if is_number(version):
            record = await self.version(model, int(version))
            return record.version, record.manifest_sha256
        promotion = (await self.alias(model, version)).promotion
        return promotion.version, promotion.manifest_sha256

    async def manifest(self, model: str, sha256: str) -> Manifest:
        """The manifest with this digest, verified. Raises an `ArtifactError`."""
        return (await self.manifest_bytes(model, sha256))[0]

    async def manifest_bytes(self, model: str, sha256: str) -> tuple[Manifest, bytes]:
        """The same, and the very bytes that have the digest."""
        try:
            stored = await self._store.get(layout.manifest(model, sha256))
        except ObjectNotFound:
            raise ManifestInvalid(f"model '{model}': manifest {sha256[:12]} is missing from the store") from None
        if codec.sha256(stored.body) != sha256:
            raise DigestMismatch(f"model '{model}': the bytes of manifest {sha256[:12]} do not have this digest")
        manifest = codec.decode(stored.body, Manifest, what=f"the manifest of model '{model}'")
        if manifest.model != model:
            raise ManifestInvalid(f"model '{model}': its manifest is for '{manifest.model}'")
        return manifest, stored.body

    async def signature(self, model: str, manifest_sha256: str, key_id: str) -> bytes | None:
        """What was stored as this key's signature, None when nothing was; not verified, `gateway.registry.signatures` does that.

        Of one that is longer than `SIGNATURE_BYTES_MAX` it is one byte more than that.
        """
        key = layout.signature(model, manifest_sha256, key_id)
        try:
            return await self._store.get_range(key, 0, SIGNATURE_BYTES_MAX + 1)
        except ObjectNotFound:
            return None

    async def signers(self, model: str, manifest_sha256: str) -> list[str]:
        """The ids of the keys whose signatures lie beside this manifest; not verified."""
        return [name for name in await self._stems(layout.signatures(model, manifest_sha256)) if fits(name, KeyId)]

    async def history(self, model: str, alias: str | None = None, *, after: int = 0) -> list[Promotion]:
        """Decisions with a generation above `after`, oldest first; of one alias, or of all."""
        start_after = layout.promotion(model, after) if after else ""
        keys = [info.key async for info in self._store.list(layout.promotions(model), start_after=start_after)]
        entries: list[Promotion] = []
        for start in range(0, len(keys), READS_AT_ONCE):
            entries += await asyncio.gather(*map(self._entry, keys[start : start + READS_AT_ONCE]))
        return [entry for entry in entries if alias in {None, entry.alias}]

    async def _entry(self, key: str) -> Promotion:
        return codec.decode((await self._store.get(key)).body, Promotion, what=f"'{key}'")

    async def _stems(self, prefix: str) -> list[str]:
        return [info.key.removeprefix(prefix).removesuffix(".json") async for info in self._store.list(prefix)]

    async def _unknown(self, model: str, version: str) -> ModelNotFound:
        versions = ", ".join(map(str, await self.versions(model))) if is_name(model) else ""
        if versions and is_number(version):
            return ModelNotFound(f"model '{model}' has no version {version}; published: {versions}")
        if versions and version == layout.CHAMPION:
            return ModelNotFound(f"model '{model}' has versions but none is promoted to '{layout.CHAMPION}' yet")
        if versions:
            aliases = ", ".join(await self.aliases(model)) or "none"
            return ModelNotFound(
                f"model '{model}' has no version or alias '{version[:64]}'; versions: {versions}; aliases: {aliases}"
            )
        names = await self.names()
        published = f"published: {', '.join(names[:20])}" if names else "nothing is published yet"
        return ModelNotFound(f"no model is named '{model[:64]}'; {published}")


def is_number(text: str) -> bool:
    """Whether this asks for a version by its number, written the one way numbers are; anything else is the name of an alias."""
    return text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX and text == str(int(text))


def _alias_state(body: bytes, etag: str, model: str) -> AliasState:
    promotion = codec.decode(body, Promotion, what=f"the alias of model '{model}'")
    if promotion.model != model:
        raise ManifestInvalid(f"model '{model}': its alias is for '{promotion.model}'")
    return AliasState(promotion, etag)

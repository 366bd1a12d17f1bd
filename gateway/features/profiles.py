"""Reads a version's profile from the store. Beside the load of the model and after it: no answer waits for statistics."""

from gateway.contract import codec, layout
from gateway.contract.features import PROFILE_BYTES_MAX, FeatureProfile
from gateway.contract.manifest import File, Manifest
from gateway.errors import DigestMismatch, UnsupportedModel
from gateway.features.counting import Plan
from gateway.objectstore.protocol import ObjectStore


def profile_file(manifest: Manifest) -> File | None:
    """The profile's descriptor, None in artifacts that have none."""
    return next((file for file in manifest.files if file.role == "profile"), None)


async def read(store: ObjectStore, manifest: Manifest, file: File) -> Plan:
    """How rows of this model are counted. Raises an `ArtifactError` or a store error."""
    if file.size > PROFILE_BYTES_MAX:
        raise UnsupportedModel(f"'{file.name}' is {file.size:,} bytes; a profile has at most {PROFILE_BYTES_MAX:,}")
    body = (await store.get(layout.blob(manifest.model, file.sha256))).body
    if codec.sha256(body) != file.sha256:
        raise DigestMismatch(f"the bytes of '{file.name}' do not have the digest in the manifest")
    return Plan(codec.decode(body, FeatureProfile, what=f"'{file.name}'"), manifest.signature)

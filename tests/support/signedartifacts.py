"""An artifact in a folder and its signature."""

from pathlib import Path

import msgspec

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.registry import signatures
from tests.support import models, signingkeys
from tests.support.signingkeys import KeyFiles
from trainers import publish


class Signed(msgspec.Struct, frozen=True):
    """An artifact in a folder, and its signature by `key`."""

    folder: Path
    manifest: Manifest
    sha256: str
    bundle: bytes
    key: KeyFiles

    def require(self, bundle: bytes) -> None:
        """As a gateway would with this key pinned."""
        key = signatures.public_key(str(self.key.public))
        signatures.verify(bundle, key, self.manifest, self.sha256)


def artifact(folder: Path, seed: int = 0) -> Path:
    publish.write(folder, *models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.tiny_graph(seed)}))
    return folder


def made(folder: Path) -> Signed:
    """With a new key."""
    written = artifact(folder / "run")
    key = signingkeys.make(folder, "sign")
    data = (written / layout.MANIFEST).read_bytes()
    return Signed(written, codec.decode(data, Manifest), codec.sha256(data), key.signer.sign(written), key)

"""Signs a finished artifact with a key, as OpenSSF model-signing does: the only door to `model_signing`.

Importing it takes 0.4 s and drags sigstore in, so that happens when something is signed. Keys are EC over P-256, which is what
gateways accept:  openssl ecparam -name prime256v1 -genkey -noout -out sign.pem; openssl pkey -in sign.pem -pubout -out sign.pub
Called by `trainers.publish` before a version is claimed, and by `trainers.countersign` for versions that are published.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.errors import PreconditionFailed, SignatureInvalid
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry
from trainers.errors import SpecError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PASSPHRASE = "STEELYARD_SIGN_PASSPHRASE"  # noqa: S105 - the variable's name
"""The environment variable that opens an encrypted key file."""

STORES_TRIED = 2
"""A second look is needed only when another publisher stored this key's signature while we made ours."""


class Signer:
    """A private key in a PEM file. `key_id` names its public half in the store and in `repository.public_keys`' reports."""

    def __init__(self, key_file: Path, *, passphrase: str | None = None) -> None:
        """Raises `SpecError` for a file that is no such key, or that this passphrase does not open."""
        from gateway.registry.signatures import key_id

        self._file = key_file
        self._password = passphrase.encode() if passphrase else None
        self._public = _private_key(key_file, self._password).public_key()
        self.key_id = key_id(self._public)

    def sign(self, folder: Path) -> bytes:
        """A sigstore bundle over the manifest in this folder and the files that it names, whatever else lies there.

        Blocks: it hashes everything. Raises `SignatureInvalid` when a file is not what the manifest says.
        """
        from model_signing import signing

        data = (folder / layout.MANIFEST).read_bytes()
        manifest = codec.decode(data, Manifest)
        config = signing.Config().use_elliptic_key_signer(
            private_key=self._file,
            password=self._password,  # type: ignore[arg-type]  # declared as str; what it is passed on to takes bytes
        )
        with _only(manifest, folder) as artifact:
            bundle = artifact.with_name("bundle.json")
            config.sign(artifact, bundle)
            signature = bundle.read_bytes()
        self.verify(signature, manifest, codec.sha256(data))
        return signature

    def verify(self, bundle: bytes, manifest: Manifest, manifest_sha256: str) -> None:
        """With the very code that gateways run. Raises `SignatureInvalid`."""
        from gateway.registry import signatures

        signatures.verify(bundle, self._public, manifest, manifest_sha256)


def signer(key_file: Path) -> Signer:
    """The key in this file, opened with the passphrase in `PASSPHRASE` where it needs one. Raises `SpecError`."""
    return Signer(key_file, passphrase=os.environ.get(PASSPHRASE))


async def put(store: ObjectStore, folder: Path, signer: Signer) -> bool:
    """Store this key's signature of the artifact in `folder`; whether there was none yet. Other keys' signatures stay.

    A signature is never replaced: raises `SignatureInvalid` when what is stored under this key is not one of this artifact.
    """
    data = await asyncio.to_thread((folder / layout.MANIFEST).read_bytes)
    manifest, sha256 = codec.decode(data, Manifest), codec.sha256(data)
    key = layout.signature(manifest.model, sha256, signer.key_id)
    for _ in range(STORES_TRIED):
        stored = await Registry(store).signature(manifest.model, sha256, signer.key_id)
        if stored is not None:
            try:
                signer.verify(stored, manifest, sha256)
            except SignatureInvalid as error:
                raise SignatureInvalid(f"'{key}' is there already, and {error}; delete it there first") from error
            return False
        bundle = await asyncio.to_thread(signer.sign, folder)
        with contextlib.suppress(PreconditionFailed):
            await store.put_if_absent(key, bundle)
            return True
    raise SignatureInvalid(f"'{key}' is there and cannot be read; look at the store")


@contextlib.contextmanager
def _only(manifest: Manifest, folder: Path) -> Iterator[Path]:
    """A folder named as the model with nothing in it but the artifact: a run's own folder may hold logs and checkpoints."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".sign-") as made:
        artifact = Path(made) / manifest.model
        artifact.mkdir()
        for name in (layout.MANIFEST, *(file.name for file in manifest.files)):
            try:
                os.link(folder / name, artifact / name)
            except OSError:  # a file system without hard links
                shutil.copyfile(folder / name, artifact / name)
        yield artifact


def _private_key(path: Path, password: bytes | None) -> "EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password)
    except OSError as error:
        raise SpecError(f"signing key {path}: {error.strerror}") from error
    except TypeError as error:  # a passphrase that is missing, or given for a key that needs none
        needs = "is encrypted: set" if password is None else "is not encrypted: unset"
        raise SpecError(f"signing key {path} {needs} {PASSPHRASE}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        wrong = f"{PASSPHRASE} does not open it, or it" if password else "it"
        raise SpecError(f"signing key {path}: {wrong} is no PEM file of a private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SpecError(f"signing key {path} is not EC over P-256; make one: openssl ecparam -name prime256v1 -genkey")
    return key

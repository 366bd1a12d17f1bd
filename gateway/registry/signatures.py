"""Whether a pinned key signed exactly this artifact: sigstore bundles with a DSSE envelope, ECDSA over P-256 and SHA-256.

OpenSSF model-signing writes them (`trainers.signing`), so its own command verifies them too. What is signed is the digest of the
manifest's bytes and the name and digest of every file in it; hashing the bytes is left to whoever fetches them. No certificates, no
transparency log, no network. The only door to `cryptography`, imported where keys are pinned. Called by `gateway.repository` before
a load, by `trainers.signing` before a signature is stored, and by `steelyard models`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from msgspec import Meta

from gateway.contract import layout
from gateway.contract.manifest import Manifest
from gateway.contract.words import Sha256
from gateway.errors import SettingsError, SignatureInvalid
from gateway.registry.reading import SIGNATURE_BYTES_MAX, Registry

KEY_ID_DIGITS = 16
SIGNERS_SHOWN_MAX = 8
REASON_LENGTH_MAX = 200
"""A reason may quote what an intruder wrote, and goes into the log."""


class _Signature(msgspec.Struct):
    sig: bytes


class _Envelope(msgspec.Struct, rename="camel"):
    payload_type: Literal["application/vnd.in-toto+json"]
    payload: bytes
    signatures: Annotated[tuple[_Signature, ...], Meta(min_length=1, max_length=1)]


class _PublicKey(msgspec.Struct):
    """A hint which key it was. Nobody signed the hint, so it decides nothing."""


class _Material(msgspec.Struct, rename="camel"):
    public_key: _PublicKey


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Envelope


class _Digest(msgspec.Struct):
    sha256: Sha256


class _Subject(msgspec.Struct):
    digest: _Digest


class _Resource(msgspec.Struct):
    name: str
    algorithm: Literal["sha256"]
    digest: Sha256


class _Serialization(msgspec.Struct):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Predicate(msgspec.Struct):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(msgspec.Struct, rename="camel"):
    """Fields that a later publisher adds are ignored, as in-toto's specification demands (in-toto/attestation, spec/v1, "Parsing
    rules"): they may never turn a refusal into a consent.
    """

    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[_Subject, ...], Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate


_bundles = msgspec.json.Decoder(_Bundle)
_statements = msgspec.json.Decoder(_Statement)


class PinnedKeys:
    """The public keys whose signatures count; any one of them is enough, so that a new key can take over from an old one."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Each source is the path of a PEM file, or the PEM itself. Raises `SettingsError` naming the one that is no such key."""
        self._keys = {key_id(key): key for key in map(public_key, sources)}

    async def signer(self, registry: Registry, manifest: Manifest, manifest_sha256: str) -> str:
        """The id of a pinned key that signed all of this artifact. Raises `SignatureInvalid`, or a store error."""
        name, problems = f"model '{manifest.model}', manifest {manifest_sha256[:12]}", []
        for one, key in self._keys.items():
            bundle = await registry.signature(manifest.model, manifest_sha256, one)
            if bundle is None:
                continue
            try:
                verify(bundle, key, manifest, manifest_sha256)
            except SignatureInvalid as error:
                problems.append(f"the signature by key {one} is refused: {error}")
                continue
            return one
        if problems:
            raise SignatureInvalid(f"{name}: {'; '.join(problems)}")
        found = await registry.signers(manifest.model, manifest_sha256)
        others = [one for one in found if one not in self._keys]  # a pinned one came just now: the next look finds it
        signed = f"signed by {', '.join(others[:SIGNERS_SHOWN_MAX])}, and by none" if others else "not signed by any"
        raise SignatureInvalid(f"{name}: {signed} of the pinned keys ({', '.join(self._keys)})")


def verify(bundle: bytes, key: EllipticCurvePublicKey, manifest: Manifest, manifest_sha256: str) -> None:
    """Raises `SignatureInvalid` unless this key signed the manifest with this digest and all of its files, and nothing else."""
    if len(bundle) > SIGNATURE_BYTES_MAX:
        raise SignatureInvalid(f"it is longer than {SIGNATURE_BYTES_MAX:,} bytes")
    try:
        envelope = _bundles.decode(bundle).dsse_envelope
        key.verify(envelope.signatures[0].sig, _signed(envelope), ECDSA(hashes.SHA256()))
        statement = _statements.decode(envelope.payload)
    except InvalidSignature:
        raise SignatureInvalid("the key did not sign this, or it was altered") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureInvalid(f"it is no signature of a model: {error}"[:REASON_LENGTH_MAX]) from error
    _require_covers(statement, manifest, manifest_sha256)


def _signed(envelope: _Envelope) -> bytes:
    """DSSE's pre-authentication encoding (secure-systems-lab/dsse, protocol.md), which binds the payload to its type."""
    kind = envelope.payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(envelope.payload), envelope.payload)


def _require_covers(statement: _Statement, manifest: Manifest, manifest_sha256: str) -> None:
    promised = {file.name: file.sha256 for file in manifest.files}
    resources = statement.predicate.resources
    signed = {resource.name: resource.digest for resource in resources}
    if layout.MANIFEST in promised or len(signed) != len(resources):
        raise SignatureInvalid("a file's name appears twice")
    promised[layout.MANIFEST] = manifest_sha256
    for what, names in (
        ("it does not cover", promised.keys() - signed.keys()),
        ("it covers what is no part of the artifact:", signed.keys() - promised.keys()),
        ("it is for another", {name for name in promised.keys() & signed.keys() if promised[name] != signed[name]}),
    ):
        if names:
            raise SignatureInvalid(f"{what} {', '.join(map(repr, sorted(names)))}"[:REASON_LENGTH_MAX])
    whole = hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in resources)).hexdigest()
    if statement.subject[0].digest.sha256 != whole:
        raise SignatureInvalid("its subject is not the files that it lists")


def key_id(key: EllipticCurvePublicKey) -> str:
    """The name under which this key's signatures are stored: `gateway.contract.words.KeyId`."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:KEY_ID_DIGITS]


def public_key(source: str) -> EllipticCurvePublicKey:
    """From a PEM file's path, or from the PEM itself. Raises `SettingsError` naming it."""
    is_inline = "-----BEGIN" in source
    name = "an inline public key" if is_inline else f"public key {source!r}"
    try:
        pem = source.encode() if is_inline else Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SettingsError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    if b"PRIVATE KEY" in pem:
        raise SettingsError(f"{name} is a private key; give gateways the public one: openssl pkey -in FILE -pubout")
    if pem.count(b"-----BEGIN") > 1:
        raise SettingsError(f"{name} holds several keys; give each a file of its own")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{name} is no PEM file of a public key") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise SettingsError(f"{name} is not of the kind that signs models, which is EC over P-256 (prime256v1)")
    return key

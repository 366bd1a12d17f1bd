"""Keys that sign models, in PEM files as openssl writes them, and signatures that the real signer would not make."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from trainers.signing import Signer

PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PEM = serialization.Encoding.PEM
PAYLOAD_TYPE = "application/vnd.in-toto+json"


class KeyFiles(msgspec.Struct, frozen=True):
    """`private` for the publisher, `public` for gateways."""

    private: Path
    public: Path

    @property
    def signer(self) -> Signer:
        return Signer(self.private)


def make(folder: Path, name: str, *, curve: ec.EllipticCurve | None = None, passphrase: str = "") -> KeyFiles:
    """P-256 unless told otherwise; encrypted when there is a passphrase."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    lock = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    files = KeyFiles(folder / f"{name}.pem", folder / f"{name}.pub")
    files.private.write_bytes(key.private_bytes(PEM, PKCS8 if passphrase else TRADITIONAL, lock))
    files.public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
    return files


def statement_of(bundle: bytes) -> Any:
    """What a bundle's signature is about."""
    return json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))


def with_payload(bundle: bytes, payload: bytes, *, key: Path | None = None, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bundle about another payload, signed anew where a key is given: well-formed, and by a key that is trusted."""
    tree = json.loads(bundle)
    envelope = tree["dsseEnvelope"]
    envelope["payload"] = base64.b64encode(payload).decode()
    if key is not None:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        kind = payload_type.encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        envelope["payloadType"] = payload_type
        envelope["signatures"][0]["sig"] = base64.b64encode(private.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()
    return json.dumps(tree).encode()


def altered(bundle: bytes, change: Callable[[Any], object], *, key: Path) -> bytes:
    """The bundle after `change` was done to its statement, signed anew."""
    statement = statement_of(bundle)
    change(statement)
    return with_payload(bundle, json.dumps(statement).encode(), key=key)

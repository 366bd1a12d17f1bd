"""Keys in PEM files: what a gateway takes as a public one, what the publisher takes as a private one, what is refused by name."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import SettingsError
from gateway.registry import signatures
from gateway.registry.signatures import PinnedKeys
from tests.support import signedartifacts, signingkeys
from tests.support.signedartifacts import Signed, artifact
from trainers import signing
from trainers.errors import SpecError


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signedartifacts.made(tmp_path_factory.mktemp("signed"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no PEM file of a public key"),
        (b"\x00\xff", "is no PEM file of a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is no PEM file of a public key"),
    ],
)
def test_a_file_that_is_no_public_key_is_an_error_of_the_settings(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "key.pub").write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        PinnedKeys([str(tmp_path / "key.pub")])


def test_keys_of_the_wrong_kind_are_errors_of_the_settings(tmp_path: Path) -> None:
    good = signingkeys.make(tmp_path, "good")
    other_curve = signingkeys.make(tmp_path, "p384", curve=ec.SECP384R1())
    both = tmp_path / "both.pub"
    both.write_bytes(good.public.read_bytes() + other_curve.public.read_bytes())
    for source, message in (
        (str(tmp_path / "missing.pub"), "missing.pub': No such file"),
        (str(tmp_path), "Is a directory"),
        (str(good.private), "is a private key; give gateways the public one"),
        (str(other_curve.public), "EC over P-256"),
        (str(both), "holds several keys"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(SettingsError, match=message):
            PinnedKeys([str(good.public), source])


def test_a_key_may_be_given_inline(signed: Signed) -> None:
    key = signatures.public_key(signed.key.public.read_text())
    assert signatures.key_id(key) == signed.key.signer.key_id


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = signingkeys.make(tmp_path, "locked", passphrase="open sesame")
    with pytest.raises(SpecError, match="is encrypted: set STEELYARD_SIGN_PASSPHRASE"):
        signing.signer(key.private)
    monkeypatch.setenv(signing.PASSPHRASE, "wrong")
    with pytest.raises(SpecError, match="STEELYARD_SIGN_PASSPHRASE does not open it"):
        signing.signer(key.private)
    with pytest.raises(SpecError, match="is not encrypted: unset"):
        signing.signer(signingkeys.make(tmp_path, "open").private)
    monkeypatch.setenv(signing.PASSPHRASE, "open sesame")
    signer = signing.signer(key.private)
    assert signer.key_id == signatures.key_id(signatures.public_key(str(key.public)))
    assert signer.sign(artifact(tmp_path / "run"))


def test_private_keys_of_the_wrong_kind_are_errors_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("hello")
    for path, message in (
        (tmp_path / "missing.pem", "No such file"),
        (tmp_path / "text.pem", "no PEM file of a private key"),
        (signingkeys.make(tmp_path, "a").public, "no PEM file of a private key"),
        (signingkeys.make(tmp_path, "p384", curve=ec.SECP384R1()).private, "not EC over P-256"),
    ):
        with pytest.raises(SpecError, match=message):
            signing.signer(path)

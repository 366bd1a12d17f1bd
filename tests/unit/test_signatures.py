"""Which signatures a gateway believes: real ones by the publisher, and every way in which one can be wrong.

In a store: `test_signed_versions.py`.
"""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.errors import SignatureInvalid
from gateway.registry import signatures
from gateway.registry.reading import SIGNATURE_BYTES_MAX
from tests.support import signedartifacts, signingkeys
from tests.support.signedartifacts import Signed, artifact

GOLDEN = Path(__file__).parent.parent / "contract" / "golden" / "signature"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signedartifacts.made(tmp_path_factory.mktemp("signed"))


def test_a_signature_of_the_publisher_is_accepted(signed: Signed) -> None:
    signed.require(signed.bundle)


def test_a_signature_stored_by_an_earlier_release_is_accepted() -> None:
    """Stored bytes are for ever. Made by `Signer.sign` over `manifest-v1.json` with model-signing 1.1.1; its key is no more."""
    data = (GOLDEN.parent / "manifest-v1.json").read_bytes()
    key = signatures.public_key(str(GOLDEN / "key.pub"))
    assert signatures.key_id(key) == "3ab5a13aeaf62a93"
    manifest = codec.decode(data, Manifest)
    signatures.verify((GOLDEN / "bundle-v1.json").read_bytes(), key, manifest, codec.sha256(data))


def test_the_key_id_is_what_openssl_computes(signed: Signed) -> None:
    der = subprocess.run(
        ["openssl", "pkey", "-in", signed.key.private, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    assert signed.key.signer.key_id == codec.sha256(der)[:16]


def test_the_signature_covers_the_artifact_and_nothing_else_that_lies_in_the_folder(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "run-1")
    (folder / "checkpoint.safetensors").write_bytes(b"x")
    (folder / "logs").mkdir()
    bundle = signingkeys.make(tmp_path, "sign").signer.sign(folder)
    statement = signingkeys.statement_of(bundle)
    assert [resource["name"] for resource in statement["predicate"]["resources"]] == ["fp32.onnx", "manifest.json"]
    assert statement["subject"][0]["name"] == "tiny"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.safetensors",
        "fp32.onnx",
        "logs",
        "manifest.json",
    }


def test_a_folder_that_is_not_what_its_manifest_says_is_not_signed(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "run")
    (folder / "fp32.onnx").write_bytes(b"altered")
    with pytest.raises(SignatureInvalid, match=r"it is for another 'fp32\.onnx'"):
        signingkeys.make(tmp_path, "sign").signer.sign(folder)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_no_flipped_bit_of_the_signature_or_of_what_it_signs_is_accepted(signed: Signed) -> None:
    tree = json.loads(signed.bundle)
    envelope = tree["dsseEnvelope"]
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    payload = base64.b64decode(envelope["payload"])
    for at in range(len(signature)):
        envelope["signatures"][0]["sig"] = base64.b64encode(_flipped(signature, at)).decode()
        with pytest.raises(SignatureInvalid):
            signed.require(json.dumps(tree).encode())
    for at in range(len(payload)):
        with pytest.raises(SignatureInvalid):
            signed.require(signingkeys.with_payload(signed.bundle, _flipped(payload, at)))


def test_the_signature_of_another_version_is_refused(signed: Signed, tmp_path: Path) -> None:
    other = signed.key.signer.sign(artifact(tmp_path / "other", seed=1))
    with pytest.raises(SignatureInvalid, match=r"it is for another 'fp32\.onnx', 'manifest\.json'"):
        signed.require(other)


def test_another_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    with pytest.raises(SignatureInvalid, match="the key did not sign this"):
        signed.require(signingkeys.make(tmp_path, "other").signer.sign(signed.folder))


Resources = list[dict[str, str]]


def _resources(statement: Any) -> Resources:  # Any: JSON
    found: Resources = statement["predicate"]["resources"]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: _resources(s).pop(0), r"it does not cover 'fp32\.onnx'"),
        (lambda s: _resources(s).pop(1), r"it does not cover 'manifest\.json'"),
        (lambda s: _resources(s).append(_resources(s)[0] | {"name": "extra.onnx"}), r"no part of the artifact: 'extra"),
        (lambda s: _resources(s).append(_resources(s)[0]), "a file's name appears twice"),
        (lambda s: _resources(s)[0].update(digest="0" * 64), r"it is for another 'fp32\.onnx'"),
        (lambda s: _resources(s)[0].update(digest="0" * 63), r"digest"),
        (lambda s: _resources(s)[0].update(algorithm="blake3"), r"algorithm"),
        (lambda s: _resources(s)[0].update(name=7), r"name"),
        (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), "its subject is not the files that it lists"),
        (lambda s: s["subject"].append(s["subject"][0]), r"subject"),
        (lambda s: s["subject"].clear(), r"subject"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), r"_type"),
        (lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"), r"predicateType"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), r"predicateType"),
        (lambda s: s.pop("predicate"), r"predicate"),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), r"method"),
        (lambda s: s["predicate"]["serialization"].update(hash_type="blake2"), r"hash_type"),
    ],
)
def test_a_statement_that_does_not_cover_exactly_this_artifact_is_refused_though_the_key_signed_it(
    signed: Signed, change: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(SignatureInvalid, match=message):
        signed.require(signingkeys.altered(signed.bundle, change, key=signed.key.private))


def test_a_field_that_a_later_publisher_adds_changes_nothing(signed: Signed) -> None:
    def add(statement: Any) -> None:  # Any: JSON
        statement["predicate"]["card"] = {"x": 1}

    signed.require(signingkeys.altered(signed.bundle, add, key=signed.key.private))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.update(mediaType="application/vnd.dev.sigstore.bundle.v0.1+json"), "mediaType"),
        (
            lambda b: b["verificationMaterial"].update(certificate=b["verificationMaterial"].pop("publicKey")),
            "publicKey",
        ),
        (lambda b: b["dsseEnvelope"].update(payloadType="text/plain"), "payloadType"),
        (lambda b: b["dsseEnvelope"]["signatures"].clear(), "signatures"),
        (lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]), "signatures"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig=""), "the key did not sign this"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="?"), "sig"),
        (lambda b: b.update(padding="x" * SIGNATURE_BYTES_MAX), "longer than 262,144 bytes"),
        (lambda b: b.clear(), "missing"),
    ],
)
def test_a_bundle_of_another_kind_is_refused(signed: Signed, change: Callable[[Any], object], message: str) -> None:
    tree = json.loads(signed.bundle)
    change(tree)
    with pytest.raises(SignatureInvalid, match=message):
        signed.require(json.dumps(tree).encode())


def test_the_payload_type_is_part_of_what_is_signed(signed: Signed) -> None:
    """A signature over the same bytes as something else is no signature of a model."""
    payload = json.dumps(signingkeys.statement_of(signed.bundle)).encode()
    tree = json.loads(
        signingkeys.with_payload(signed.bundle, payload, key=signed.key.private, payload_type="text/plain")
    )
    tree["dsseEnvelope"]["payloadType"] = signingkeys.PAYLOAD_TYPE
    with pytest.raises(SignatureInvalid, match="the key did not sign this"):
        signed.require(json.dumps(tree).encode())


def test_a_file_that_takes_the_manifests_name_is_refused(signed: Signed) -> None:
    files = tuple(msgspec.structs.replace(file, name=layout.MANIFEST) for file in signed.manifest.files[:1])
    manifest = msgspec.structs.replace(signed.manifest, files=(*signed.manifest.files, *files))
    with pytest.raises(SignatureInvalid, match="appears twice"):
        signatures.verify(signed.bundle, signatures.public_key(str(signed.key.public)), manifest, signed.sha256)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # Any: JSON and its keys
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, child in children for found in ((*path, key), *_paths(child, (*path, key)))]


def _put(tree: Any, path: tuple[Any, ...], value: Any) -> None:  # Any: JSON and its keys
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_stored_as_a_signature_is_refused_by_name(signed: Signed, data: st.DataObject) -> None:
    """Bytes, JSON, and bundles with any part replaced, outside the signed statement and inside it with a good signature."""
    kind = data.draw(st.sampled_from(["bytes", "json", "cut", "bundle", "statement"]))
    if kind == "bytes":
        bundle = data.draw(st.binary())
    elif kind == "json":
        bundle = json.dumps(data.draw(JSON)).encode()
    elif kind == "cut":
        bundle = signed.bundle[: data.draw(st.integers(0, len(signed.bundle) - 1))]
    elif kind == "bundle":
        tree = json.loads(signed.bundle)
        path = data.draw(st.sampled_from([path for path in _paths(tree) if not _is_unsigned(path)]))
        value = data.draw(JSON.filter(lambda value: not _is_material(path, value)))
        _put(tree, path, value)
        bundle = json.dumps(tree).encode()
    else:
        statement = signingkeys.statement_of(signed.bundle)
        path = data.draw(st.sampled_from([path for path in _paths(statement) if not _is_ignored(path)]))
        _put(statement, path, data.draw(JSON))
        bundle = signingkeys.with_payload(signed.bundle, json.dumps(statement).encode(), key=signed.key.private)
    with pytest.raises(SignatureInvalid):
        signed.require(bundle)


def _is_unsigned(path: tuple[Any, ...]) -> bool:
    """Parts of a bundle that decide nothing, because anybody could change them."""
    return path[-1] in {"hint", "tlogEntries", "keyid"}


def _is_material(path: tuple[Any, ...], value: Any) -> bool:
    """Another hint is a hint."""
    return (path[-1] == "publicKey" and isinstance(value, dict)) or (
        path[-1] == "verificationMaterial" and isinstance(value, dict) and isinstance(value.get("publicKey"), dict)
    )


def _is_ignored(path: tuple[Any, ...]) -> bool:
    """Names for people, and how the signer walked its folder."""
    walked = {"ignore_paths", "allow_symlinks"}
    return (path[0] == "subject" and path[-1] == "name") or not walked.isdisjoint(map(str, path))


def test_deep_nesting_is_refused_by_name(signed: Signed) -> None:
    with pytest.raises(SignatureInvalid, match="recursion"):
        signed.require(b'{"ignored":' + b"[" * 100_000)

"""Which signatures a gateway believes: real ones by the publisher, and every way in which one can be wrong."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.errors import ObjectNotFound, SettingsError, SignatureInvalid
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import signatures
from gateway.registry.reading import SIGNATURE_BYTES_MAX, Registry
from gateway.registry.signatures import PinnedKeys
from tests.support import models, signingkeys
from tests.support.models import NOW_NS
from tests.support.repositories import CountingStore, weighing
from tests.support.signingkeys import KeyFiles
from trainers import publish, signing
from trainers.errors import SpecError

GOLDEN = Path(__file__).parent.parent / "contract" / "golden" / "signature"


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


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    tmp_path = tmp_path_factory.mktemp("signed")
    folder = artifact(tmp_path / "run")
    key = signingkeys.make(tmp_path, "sign")
    data = (folder / layout.MANIFEST).read_bytes()
    return Signed(folder, codec.decode(data, Manifest), codec.sha256(data), key.signer.sign(folder), key)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


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


# Keys


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


# In the store


async def published(store: ObjectStore, folder: Path, signer: signing.Signer | None) -> tuple[Manifest, str]:
    record = await publish.publish(store, folder, run_id="run-1", now_ns=NOW_NS, signer=signer)
    return await Registry(store).manifest("tiny", record.manifest_sha256), record.manifest_sha256


class NoVersions:
    """A store in which no version can be claimed."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:  # Any: whichever method was asked for
        return getattr(self._store, name)

    async def put_if_absent(self, key: str, body: bytes) -> str:
        assert not key.startswith(layout.versions("tiny")), "stop"
        return await self._store.put_if_absent(key, body)


async def test_the_signature_is_stored_before_the_version_can_be_seen(store: ObjectStore, tmp_path: Path) -> None:
    folder, signer = artifact(tmp_path / "run"), signingkeys.make(tmp_path, "sign").signer
    with pytest.raises(AssertionError, match="stop"):
        await published(NoVersions(store), folder, signer)  # type: ignore[arg-type]  # a store, by __getattr__
    sha256 = codec.sha256((folder / layout.MANIFEST).read_bytes())
    assert await Registry(store).signers("tiny", sha256) == [signer.key_id]
    assert await Registry(store).versions("tiny") == []


async def test_publishing_again_signs_nothing_again(store: ObjectStore, tmp_path: Path) -> None:
    folder, signer = artifact(tmp_path / "run"), signingkeys.make(tmp_path, "sign").signer
    _, sha256 = await published(store, folder, signer)
    first = await Registry(store).signature("tiny", sha256, signer.key_id)
    await published(store, folder, signer)
    assert await Registry(store).signature("tiny", sha256, signer.key_id) == first


async def test_several_keys_sign_one_version_and_any_pinned_one_counts(store: ObjectStore, tmp_path: Path) -> None:
    folder, registry = artifact(tmp_path / "run"), Registry(store)
    old, new, stranger = (signingkeys.make(tmp_path, name) for name in ("old", "new", "stranger"))
    manifest, sha256 = await published(store, folder, old.signer)
    assert await signing.put(store, folder, new.signer)
    assert not await signing.put(store, folder, new.signer)
    assert sorted(await registry.signers("tiny", sha256)) == sorted([old.signer.key_id, new.signer.key_id])
    for pinned, expected in (([old], old), ([new], new), ([stranger, new], new), ([new, old], new)):
        keys = PinnedKeys([str(one.public) for one in pinned])
        assert await keys.signer(registry, manifest, sha256) == expected.signer.key_id
    with pytest.raises(SignatureInvalid, match=f"signed by .*{old.signer.key_id}.*, and by none of the pinned keys"):
        await PinnedKeys([str(stranger.public)]).signer(registry, manifest, sha256)


async def test_an_unsigned_version_is_refused_by_name(store: ObjectStore, tmp_path: Path) -> None:
    manifest, sha256 = await published(store, artifact(tmp_path / "run"), None)
    key = signingkeys.make(tmp_path, "sign")
    with pytest.raises(
        SignatureInvalid, match=rf"model 'tiny', manifest {sha256[:12]}: not signed by any of the pinned"
    ):
        await PinnedKeys([str(key.public)]).signer(Registry(store), manifest, sha256)


async def test_a_damaged_signature_of_one_pinned_key_does_not_hide_a_good_one_of_another(
    store: ObjectStore, tmp_path: Path
) -> None:
    folder, registry = artifact(tmp_path / "run"), Registry(store)
    bad, good = (signingkeys.make(tmp_path, name) for name in ("bad", "good"))
    manifest, sha256 = await published(store, folder, good.signer)
    await store.put_if_absent(layout.signature("tiny", sha256, bad.signer.key_id), b"{}")
    keys = [str(one.public) for one in (bad, good)]
    assert await PinnedKeys(keys).signer(registry, manifest, sha256) == good.signer.key_id
    with pytest.raises(
        SignatureInvalid, match=f"the signature by key {bad.signer.key_id} is refused: it is no signature"
    ):
        await PinnedKeys(keys[:1]).signer(registry, manifest, sha256)


async def test_what_lies_where_the_signature_belongs_is_neither_replaced_nor_believed(
    store: ObjectStore, tmp_path: Path
) -> None:
    folder, signer = artifact(tmp_path / "run"), signingkeys.make(tmp_path, "sign").signer
    sha256 = codec.sha256((folder / layout.MANIFEST).read_bytes())
    key = layout.signature("tiny", sha256, signer.key_id)
    await store.put_if_absent(key, signer.sign(artifact(tmp_path / "other", seed=1)))
    with pytest.raises(SignatureInvalid, match=r"is there already, and it is for another .*; delete it there first"):
        await published(store, folder, signer)
    assert await Registry(store).versions("tiny") == []
    await store.delete(key)
    await published(store, folder, signer)


async def test_a_huge_object_in_a_signatures_place_is_not_read_whole(store: ObjectStore, tmp_path: Path) -> None:
    manifest, sha256 = await published(store, artifact(tmp_path / "run"), None)
    key = signingkeys.make(tmp_path, "sign")
    await store.put_if_absent(layout.signature("tiny", sha256, key.signer.key_id), b"[" * (SIGNATURE_BYTES_MAX * 4))
    found = await Registry(store).signature("tiny", sha256, key.signer.key_id)
    assert found is not None
    assert len(found) == SIGNATURE_BYTES_MAX + 1
    with pytest.raises(SignatureInvalid, match="longer than"):
        await PinnedKeys([str(key.public)]).signer(Registry(store), manifest, sha256)


async def test_what_is_no_key_id_is_no_signer(store: ObjectStore, tmp_path: Path) -> None:
    _, sha256 = await published(store, artifact(tmp_path / "run"), None)
    await store.put_if_absent(f"{layout.signatures('tiny', sha256)}..x.json", b"")
    await store.put_if_absent(f"{layout.signatures('tiny', sha256)}0123456789abcdeF.json", b"")
    assert await Registry(store).signers("tiny", sha256) == []
    with pytest.raises(ObjectNotFound):
        await store.get(layout.signature("tiny", sha256, "0" * 16))


# In a gateway's memory


async def test_a_version_is_refused_before_its_files_are_fetched_and_asked_once_for_each_load(tmp_path: Path) -> None:
    store, key = CountingStore(), signingkeys.make(tmp_path, "sign")
    for seed, signer, promote_to in ((0, key.signer, "champion"), (1, None, None)):
        graphs = {"fp32": models.tiny_graph(seed)}
        made = models.manifest_of("tiny", models.TINY_SIGNATURE, graphs)
        await models.publish_files(store, *made, signer=signer, promote_to=promote_to)
    ours = await Registry(store).version("tiny", 2)
    manifest = await Registry(store).manifest("tiny", ours.manifest_sha256)
    for file in manifest.files:
        await store.delete(layout.blob("tiny", file.sha256))
    keys = [str(key.public)]
    async with weighing(store, tmp_path, pinned=PinnedKeys(keys), public_keys=tuple(keys)) as (repository, loader, _):
        with pytest.raises(SignatureInvalid):  # and not DigestMismatch
            await repository.ready("tiny", "2")
        assert not loader.built
        for _ in range(3):
            assert (await repository.ready("tiny")).signed_by == key.signer.key_id
        await store.delete(layout.signature("tiny", (await Registry(store).resolve("tiny"))[1], key.signer.key_id))
        assert (await repository.ready("tiny")).signed_by == key.signer.key_id  # what is in memory was verified
        repository.unload("tiny")
        with pytest.raises(SignatureInvalid):
            await repository.ready("tiny")

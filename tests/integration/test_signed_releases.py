"""Gateways that serve only what a pinned key signed: real signatures, real gateway processes, a store that anybody may write to."""

import asyncio
import base64
import contextlib
import json
from pathlib import Path

import pytest

from gateway.contract import layout
from gateway.contract.registry import VersionRecord
from gateway.errors import SignatureInvalid
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store
from gateway.registry.reading import Registry
from gateway.registry.signatures import PinnedKeys
from tests.integration.test_releases import BODY, POLL, metric, release, steelyard_models, version
from tests.support import gateways, goldens, servers, signingkeys, stores
from tests.support.gateways import Gateway, until
from tests.support.signingkeys import KeyFiles
from trainers.countersign import countersign


@pytest.fixture
def key(tmp_path: Path) -> KeyFiles:
    return signingkeys.make(tmp_path, "sign")


@pytest.fixture
def other(tmp_path: Path) -> KeyFiles:
    return signingkeys.make(tmp_path, "other")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    return root


def publish(root: Path, seed: int, key: KeyFiles | None, *, promote_to: str | None = None) -> VersionRecord:
    signer = key.signer if key else None
    return asyncio.run(goldens.publish_tiny(LocalStore(root), seed=seed, promote_to=promote_to, signer=signer))


def pinning(*keys: KeyFiles) -> dict[str, str]:
    return POLL | {"STEELYARD_REPOSITORY__PUBLIC_KEYS": ",".join(str(key.public) for key in keys)}


def stored(root: Path, record: VersionRecord, key: KeyFiles) -> Path:
    """The file that is this key's signature of this version."""
    path = root / layout.signature("tiny", record.manifest_sha256, key.signer.key_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def loaded(gateway: Gateway) -> list[tuple[str, str]]:
    return sorted((one["version"], one["signed_by"]) for one in gateway.get("/v1/loaded").json)


def refused(gateway: Gateway, number: int) -> str:
    answer = gateway.post(f"/v1/predict/tiny/versions/{number}", BODY)
    assert answer.status == 503, answer.body
    return answer.error


def test_a_signed_version_answers_and_an_unsigned_one_does_not(root: Path, tmp_path: Path, key: KeyFiles) -> None:
    publish(root, 0, key, promote_to="champion")
    publish(root, 1, None)
    with gateways.running(root, tmp_path, **pinning(key)) as gateway:
        assert version(gateway) == 1
        assert loaded(gateway) == [("1", key.signer.key_id)]
        assert f"not signed by any of the pinned keys ({key.signer.key_id})" in refused(gateway, 2)
    with gateways.running(root, tmp_path) as gateway:  # nobody asks for signatures here
        assert version(gateway, "/v1/predict/tiny/versions/2") == 2
        assert loaded(gateway) == [("2", "")]


def _flip_signature(bundle: bytes) -> bytes:
    tree = json.loads(bundle)
    signature = bytearray(base64.b64decode(tree["dsseEnvelope"]["signatures"][0]["sig"]))
    signature[-1] ^= 1
    tree["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(tree).encode()


def _flip_payload(bundle: bytes) -> bytes:
    payload = json.dumps(signingkeys.statement_of(bundle)).replace("fp32.onnx", "fp33.onnx").encode()
    return signingkeys.with_payload(bundle, payload)


def test_a_signature_that_was_changed_in_the_store_is_refused(root: Path, tmp_path: Path, key: KeyFiles) -> None:
    path = stored(root, publish(root, 0, key, promote_to="champion"), key)
    good = path.read_bytes()
    path.chmod(0o644)
    environment = pinning(key) | {"STEELYARD_REPOSITORY__REFUSED_S": "0"}
    with gateways.running(root, tmp_path, **environment) as gateway:
        for changed, message in (
            (_flip_signature(good), "the key did not sign this, or it was altered"),
            (_flip_payload(good), "the key did not sign this, or it was altered"),
            (good[: len(good) // 2], "it is no signature of a model"),
        ):
            path.write_bytes(changed)
            assert message in refused(gateway, 1)
            assert gateway.post("/v1/predict/tiny", BODY).status == 503
            assert gateway.get("/v1/loaded").json == []
        path.write_bytes(good)
        assert version(gateway) == 1


def test_signatures_of_another_version_and_by_another_key_are_refused(
    root: Path, tmp_path: Path, key: KeyFiles, other: KeyFiles
) -> None:
    first = publish(root, 0, key, promote_to="champion")
    second, third = publish(root, 1, None), publish(root, 2, other)
    stored(root, second, key).write_bytes(stored(root, first, key).read_bytes())
    stored(root, third, key).write_bytes(stored(root, third, other).read_bytes())
    publish(root, 3, other)
    with gateways.running(root, tmp_path, **pinning(key)) as gateway:
        assert version(gateway) == 1
        assert "it is for another 'fp32.onnx', 'golden.json', 'manifest.json'" in refused(gateway, 2)
        assert "the key did not sign this" in refused(gateway, 3)
        assert f"signed by {other.signer.key_id}, and by none of the pinned keys" in refused(gateway, 4)


def test_a_file_that_was_changed_after_signing_is_refused(root: Path, tmp_path: Path, key: KeyFiles) -> None:
    publish(root, 0, key, promote_to="champion")
    for blob in (root / "models/tiny/blobs/sha256").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(b"?" + blob.read_bytes()[1:])
    with gateways.running(root, tmp_path, **pinning(key)) as gateway:
        assert "its manifest says" in refused(gateway, 1)


def test_an_unsigned_challenger_leaves_the_champion_until_it_is_signed(
    root: Path, tmp_path: Path, key: KeyFiles
) -> None:
    publish(root, 0, key, promote_to="champion")
    publish(root, 1, None)
    with gateways.running(root, tmp_path, **pinning(key)) as gateway:
        assert version(gateway) == 1
        steelyard_models(root, "promote", "tiny", "2")
        until(lambda: bool(release(gateway)["problem"]))
        assert "version 2 is refused: model 'tiny', manifest" in release(gateway)["problem"]
        assert metric(gateway, 'release_problem{model="tiny"}') == 1
        assert {version(gateway) for _ in range(10)} == {1}
        asyncio.run(countersign(LocalStore(root), "tiny", "2", key.signer))
        until(lambda: version(gateway) == 2)  # the alias did not move meanwhile
        assert not release(gateway)["problem"]
        assert loaded(gateway) == [("2", key.signer.key_id)]
        assert gateway.log.read_text().count("version 2 is refused") == 1


def test_an_unsigned_canary_and_an_unsigned_shadow_get_nothing_until_they_are_signed(
    root: Path, tmp_path: Path, key: KeyFiles
) -> None:
    publish(root, 0, key, promote_to="champion")
    publish(root, 1, None)
    publish(root, 2, None)
    steelyard_models(root, "canary", "tiny", "2", "--percent", "100")
    steelyard_models(root, "shadow", "tiny", "3")
    with gateways.running(root, tmp_path, **pinning(key)) as gateway:
        assert version(gateway) == 1
        until(lambda: release(gateway)["problem"].count("does not take part in alias 'champion'") == 2)
        assert {version(gateway) for _ in range(10)} == {1}
        for number in ("2", "3"):
            asyncio.run(countersign(LocalStore(root), "tiny", number, key.signer))
        until(lambda: version(gateway) == 2 and release(gateway)["shadow_version"] == 3)
        assert not release(gateway)["problem"]


def test_a_new_key_takes_over_from_an_old_one(root: Path, tmp_path: Path, key: KeyFiles, other: KeyFiles) -> None:
    """Sign with both, pin both, then only the new one: no version is refused on the way."""
    publish(root, 0, key, promote_to="champion")
    with gateways.running(root, tmp_path, **pinning(other, key)) as gateway:
        assert version(gateway) == 1
        assert loaded(gateway) == [("1", key.signer.key_id)]
    asyncio.run(countersign(LocalStore(root), "tiny", "champion", other.signer))
    publish(root, 1, other)
    config = tmp_path / "gateway.toml"
    config.write_text(f"[repository]\npublic_keys = ['''\n{other.public.read_text()}''']\n")  # the key itself will do
    with gateways.running(root, tmp_path, "--config", str(config), **POLL) as gateway:
        assert version(gateway) == 1
        steelyard_models(root, "promote", "tiny", "2")
        until(lambda: version(gateway) == 2)
        assert loaded(gateway) == [("2", other.signer.key_id)]
    with gateways.running(root, tmp_path, **pinning(key)) as gateway:
        assert version(gateway, "/v1/predict/tiny/versions/1") == 1
        assert f"signed by {other.signer.key_id}, and by none of the pinned keys" in refused(gateway, 2)


def test_a_file_that_is_no_public_key_keeps_the_gateway_from_starting(
    root: Path, tmp_path: Path, key: KeyFiles
) -> None:
    with (
        pytest.raises(AssertionError, match="did not start") as failure,
        gateways.running(root, tmp_path, **pinning(KeyFiles(key.public, key.private))),
    ):
        pass
    assert f"Error: public key '{key.private}' is a private key" in str(failure.value)
    assert "listening" not in str(failure.value)
    assert not list(root.iterdir())  # not even an opening in the ledger


async def test_signatures_in_s3(
    moto: servers.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: KeyFiles
) -> None:
    bucket = stores.bucket(moto, monkeypatch)
    async with contextlib.aclosing(open_store(f"s3://{bucket}/prefix")) as store:
        registry, pinned = Registry(store), PinnedKeys([str(key.public)])
        record = await goldens.publish_tiny(store)
        manifest = await registry.manifest("tiny", record.manifest_sha256)
        with pytest.raises(SignatureInvalid, match="not signed by any of the pinned keys"):
            await pinned.signer(registry, manifest, record.manifest_sha256)
        assert await countersign(store, "tiny", "champion", key.signer) == (1, True)
        assert await countersign(store, "tiny", "1", key.signer) == (1, False)
        assert await pinned.signer(registry, manifest, record.manifest_sha256) == key.signer.key_id

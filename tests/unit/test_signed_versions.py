"""Signatures in a store: there before their version can be seen, of several keys, refused by name when wrong."""

from pathlib import Path
from typing import Any

import pytest

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.errors import ObjectNotFound, SignatureInvalid
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import SIGNATURE_BYTES_MAX, Registry
from gateway.registry.signatures import PinnedKeys
from tests.support import models, signingkeys
from tests.support.models import NOW_NS
from tests.support.repositories import CountingStore, weighing
from tests.support.signedartifacts import artifact
from trainers import publish, signing


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


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


async def test_a_signature_that_comes_between_two_looks_is_not_said_to_be_by_nobody(
    store: ObjectStore, tmp_path: Path
) -> None:
    class Before(Registry):
        async def signature(self, model: str, manifest_sha256: str, key_id: str) -> bytes | None:
            return None  # as it was a moment ago

    folder, mine = artifact(tmp_path / "run"), signingkeys.make(tmp_path, "sign")
    manifest, sha256 = await published(store, folder, mine.signer)
    with pytest.raises(SignatureInvalid) as caught:
        await PinnedKeys([str(mine.public)]).signer(Before(store), manifest, sha256)
    assert str(caught.value).endswith(f"not signed by any of the pinned keys ({mine.signer.key_id})")


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

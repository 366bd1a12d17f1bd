"""Publishing and promoting through a real local store: order, crashes, races, repeats."""

import asyncio
from pathlib import Path

import pytest

from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.contract.registry import Promotion, VersionRecord
from gateway.errors import DigestMismatch, ObjectNotFound
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support.faults import Crash, CrashingStore
from tests.support.models import NOW_NS, TINY_SIGNATURE, manifest_of, publish_tiny, tiny_graph
from trainers import publish
from trainers.errors import PublishConflict, SpecError


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def artifact(folder: Path, seed: int = 0) -> Path:
    publish.write(folder, *manifest_of("tiny", TINY_SIGNATURE, {"fp32": tiny_graph(seed)}))
    return folder


async def published(store: ObjectStore, folder: Path) -> VersionRecord:
    return await publish.publish(store, folder, run_id="run-1", now_ns=NOW_NS)


async def promoted(store: ObjectStore, version: int, *, alias: str = "champion") -> Promotion:
    return await publish.promote(
        store, model="tiny", alias=alias, version=version, actor="tests", reason="to see", now_ns=NOW_NS
    )


async def alias_of(store: ObjectStore, alias: str = "champion") -> Promotion | None:
    try:
        return codec.decode((await store.get(layout.alias("tiny", alias))).body, Promotion)
    except ObjectNotFound:
        return None


async def require_complete(store: ObjectStore, promotion: Promotion) -> None:
    """Everything the alias leads to is there."""
    record = codec.decode((await store.get(layout.version("tiny", promotion.version))).body, VersionRecord)
    stored = await store.get(layout.manifest("tiny", record.manifest_sha256))
    assert codec.sha256(stored.body) == record.manifest_sha256 == promotion.manifest_sha256
    for file in codec.decode(stored.body, Manifest).files:
        assert codec.sha256((await store.get(layout.blob("tiny", file.sha256))).body) == file.sha256


async def test_versions_count_up_and_past_nine(store: ObjectStore, tmp_path: Path):
    records = [await published(store, artifact(tmp_path / str(seed), seed)) for seed in range(11)]
    assert [record.version for record in records] == list(range(1, 12))


async def test_the_same_artifact_keeps_its_version(store: ObjectStore, tmp_path: Path):
    first = await published(store, artifact(tmp_path / "a", 1))
    await published(store, artifact(tmp_path / "b", 2))
    assert await published(store, artifact(tmp_path / "c", 1)) == first


async def test_a_file_that_is_not_what_the_manifest_says_is_refused(store: ObjectStore, tmp_path: Path):
    folder = artifact(tmp_path / "a")
    (folder / "fp32.onnx").write_bytes(b"altered")
    with pytest.raises(DigestMismatch):
        await published(store, folder)
    assert [info async for info in store.list(layout.versions("tiny"))] == []


async def test_a_stored_blob_of_the_wrong_size_is_refused(store: ObjectStore, tmp_path: Path):
    folder = artifact(tmp_path / "a")
    digest = codec.sha256((folder / "fp32.onnx").read_bytes())
    await store.put_if_absent(layout.blob("tiny", digest), b"torn")
    with pytest.raises(DigestMismatch, match="4 bytes"):
        await published(store, folder)


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_at_any_operation_leaves_nothing_incomplete_and_is_completed_by_running_again(
    tmp_path: Path, after_effect: bool
):
    folders = [artifact(tmp_path / f"artifact{seed}", seed) for seed in (1, 2)]

    async def publish_and_promote(store: ObjectStore) -> Promotion:
        return await promoted(store, (await published(store, folders[1])).version)

    crashes = 0
    while True:
        store = open_store(str(tmp_path / f"store{crashes}"), create=True)
        before = await promoted(store, (await published(store, folders[0])).version)
        crashing = CrashingStore(store, crash_at=crashes + 1, after_effect=after_effect)
        try:
            await publish_and_promote(crashing)
            break
        except Crash:
            crashes += 1
        between = await alias_of(store)
        assert between is not None
        assert between == before or (between.version, between.generation) == (2, 2)
        await require_complete(store, between)

        after = await publish_and_promote(store)

        assert (after.version, after.generation) == (2, 2)
        assert await alias_of(store) == after
        await require_complete(store, after)
    assert crashes > 8  # two blobs or more, manifest, version, log, alias, and what is read between them


async def test_promoting_what_the_alias_says_already_writes_nothing(store: ObjectStore):
    record = await publish_tiny(store)
    first = await alias_of(store)
    assert await promoted(store, record.version) == first
    assert len([info async for info in store.list(layout.promotions("tiny"))]) == 1


async def test_promoting_an_older_version_is_a_new_entry(store: ObjectStore):
    for seed in (1, 2):
        await publish_tiny(store, seed=seed)
    back = await promoted(store, 1)
    assert (back.version, back.generation) == (1, 3)
    assert await alias_of(store) == back


async def test_a_missing_version_is_refused_with_those_there_are(store: ObjectStore):
    for seed in (1, 2):
        await publish_tiny(store, seed=seed)
    with pytest.raises(SpecError, match="model 'tiny' has no version 7; published: 1, 2"):
        await promoted(store, 7)


async def test_an_alias_behind_the_log_is_brought_up_to_it(store: ObjectStore):
    for seed in (1, 2):
        await publish_tiny(store, seed=seed)
    stale = await store.get(layout.alias("tiny", "champion"))
    newest = await promoted(store, 1)
    current = await store.get(layout.alias("tiny", "champion"))
    await store.put_if_match(layout.alias("tiny", "champion"), stale.body, current.etag)

    assert await promoted(store, 1) == newest
    assert await alias_of(store) == newest


async def test_eight_publishers_at_once_get_distinct_versions(store: ObjectStore, tmp_path: Path):
    folders = [artifact(tmp_path / str(seed), seed) for seed in range(8)]
    records = await asyncio.gather(*(published(store, folder) for folder in folders))
    assert sorted(record.version for record in records) == list(range(1, 9))


async def test_eight_publishers_of_one_artifact_get_one_version(store: ObjectStore, tmp_path: Path):
    folders = [artifact(tmp_path / str(i)) for i in range(8)]
    records = await asyncio.gather(*(published(store, folder) for folder in folders))
    assert {record.version for record in records} == {1}
    assert len([info async for info in store.list(layout.versions("tiny"))]) == 1


async def test_of_racing_promoters_the_losers_are_told_and_the_alias_is_the_newest_entry(store: ObjectStore):
    for seed in range(6):
        await publish_tiny(store, seed=seed, promote_to=None)
    results = await asyncio.gather(*(promoted(store, version) for version in range(1, 7)), return_exceptions=True)
    won = [result for result in results if isinstance(result, Promotion)]
    lost = [result for result in results if isinstance(result, BaseException)]
    assert won
    assert all(isinstance(error, PublishConflict) for error in lost)
    assert await alias_of(store) == max(won, key=lambda promotion: promotion.generation)
    assert len([info async for info in store.list(layout.promotions("tiny"))]) == len(won)


async def test_promoters_of_different_aliases_do_not_conflict(store: ObjectStore):
    await publish_tiny(store, promote_to=None)
    names = ("champion", "challenger", "canary")
    made = await asyncio.gather(*(promoted(store, 1, alias=name) for name in names))
    assert sorted(promotion.generation for promotion in made) == [1, 2, 3]
    for name, promotion in zip(names, made, strict=True):
        assert await alias_of(store, name) == promotion

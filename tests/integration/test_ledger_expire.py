"""`steelyard ledger expire`: what compacted files hold is deleted and nothing else, and no report, audit or compaction notices."""

import asyncio
import contextlib
import gzip
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import duckdb
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.audit.findings import Verdict
from gateway.audit.verifying import Scope, verify
from gateway.cli.ledger import ledger as command
from gateway.contract import codec, layout
from gateway.contract.compacted import Manifest, Plan
from gateway.errors import SettingsError, StoreUnavailable
from gateway.objectstore.opening import open_store
from gateway.reports import breakdown, compaction, costs, expiring, hourproof, listing, query
from tests.support import ledgersim, servers, stores
from tests.support.memorystore import MemoryStore

DAY_NS = 24 * 3600 * 10**9
COMPACTED_NS = ledgersim.START_NS + DAY_NS
NOW_NS = COMPACTED_NS + 8 * DAY_NS
WEEK_NS = 7 * DAY_NS


def listed() -> int:
    """When the store is asked, in all reports that are compared."""
    return NOW_NS


class Store(MemoryStore):
    """Tells when what is compacted was written, and fails at the deletion `fails_at`, before it or after."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects |= objects
        self.deleted: list[str] = []
        self.asked, self.fails_at = 0, -1
        self.has_effect = False

    async def delete(self, key: str) -> None:
        fails, self.asked = self.asked == self.fails_at, self.asked + 1
        if fails and not self.has_effect:
            raise StoreUnavailable("the store is down")
        await super().delete(key)
        self.deleted.append(key)
        if fails:
            raise StoreUnavailable("the answer was lost")

    async def folders(self, prefix: str) -> list[str]:
        return sorted({key.removeprefix(prefix).split("/")[0] for key in self.keys(prefix)})

    @property
    def segments(self) -> list[str]:
        return self.keys(layout.segments())


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    return ledgersim.killed_twice().disk.objects


@pytest.fixture(scope="module")
def whole(objects: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All hours compacted, with all segments."""
    store = Store(objects)
    asyncio.run(compact(store, tmp_path_factory.mktemp("whole")))
    return store.objects


def opened(objects: dict[str, bytes], *, at_ns: int = COMPACTED_NS) -> Store:
    """What is compacted was so at this time."""
    store = Store(objects)
    store.modified_ns = dict.fromkeys(store.keys(layout.COMPACTED), at_ns)
    return store


async def compact(store: Store, folder: Path, *, at_ns: int = COMPACTED_NS) -> compaction.Compacted:
    before = set(store.objects)
    done = await compaction.compact(store, folder, now_ns=at_ns)
    store.modified_ns |= dict.fromkeys(set(store.keys(layout.COMPACTED)) - before, at_ns)
    return done


async def expire(store: Store, *, now_ns: int = NOW_NS, is_dry_run: bool = False) -> expiring.Expiry:
    return await expiring.expire(store, older_ns=WEEK_NS, now_ns=now_ns, is_dry_run=is_dry_run)


async def audited(store: Store) -> Verdict:
    return await verify(store, Scope(), now_ns=NOW_NS, reader=hourproof.read)


async def said(store: Store, folder: Path) -> list[object]:
    """What reports say of it, whole and cut within an hour."""
    cut_ns = ledgersim.START_NS + 2000 * 10**9 + 7
    asked = query.Query(("model", "version", "outcome", "hour"))
    return [
        await costs.read(store, folder, since_ns=cut_ns, until_ns=None, now_ns=listed),
        await breakdown.read(store, folder, asked, None, now_ns=listed),
    ]


def manifests(store: Store) -> dict[str, Manifest]:
    return {key: codec.decode(store.objects[key], Manifest) for key in store.keys(layout.compacted("manifests"))}


async def test_what_is_compacted_goes_and_nothing_else(whole: dict[str, bytes], tmp_path: Path) -> None:
    store = opened(whole)
    before = await said(store, tmp_path / "a"), await audited(store)
    done = await expire(store)
    assert done.refused == ()
    assert store.segments == []
    assert store.objects == {key: body for key, body in whole.items() if not key.startswith(layout.segments())}
    after = await audited(store)
    assert after == msgspec.structs.replace(before[1], expired=after.segments)
    assert after.segments == sum(one.segments for one in done.expired) > 0
    assert await said(store, tmp_path / "b") == before[0] == await said(store, tmp_path / "a")
    assert (await expire(store)).expired == ()
    assert (await compact(store, tmp_path / "c")).committed == ()


async def test_a_rehearsal_says_the_same_and_deletes_nothing(whole: dict[str, bytes]) -> None:
    store = opened(whole)
    told = await expire(store, is_dry_run=True)
    assert (store.objects, store.deleted) == (whole, [])
    assert (await expire(store)).expired == told.expired != ()


async def test_a_week_must_have_passed_since_the_hour_and_since_its_manifest(whole: dict[str, bytes]) -> None:
    store = opened(whole, at_ns=NOW_NS - WEEK_NS + 1)
    assert (await expire(store)).expired == ()
    store.modified_ns = {}  # a store that does not say when
    assert (await expire(store)).expired == ()
    store = opened(whole, at_ns=1)
    end_ns = ledgersim.START_NS // (3600 * 10**9) * 3600 * 10**9 + 3600 * 10**9
    assert (await expire(store, now_ns=end_ns + WEEK_NS - 1)).expired == ()
    assert [one.hr for one in (await expire(store, now_ns=end_ns + WEEK_NS)).expired] == ["12"]
    with pytest.raises(SettingsError, match="at least 7 days"):
        await expiring.expire(store, older_ns=WEEK_NS - 1, now_ns=NOW_NS)


@pytest.mark.parametrize("has_effect", [False, True])
async def test_a_kill_at_any_deletion_loses_nothing(whole: dict[str, bytes], tmp_path: Path, has_effect: bool) -> None:
    kept = {key: body for key, body in whole.items() if "/hr=" not in key or "/hr=13/" in key}
    expected, verdict = await said(opened(kept), tmp_path / "before"), await audited(opened(kept))
    count = len(opened(kept).segments)
    for number in (0, count // 2, count - 1):
        store = opened(kept)
        store.fails_at, store.has_effect = number, has_effect
        with pytest.raises(StoreUnavailable):
            await expire(store)
        store.fails_at = -1
        assert len(store.segments) < count or not (number or has_effect)
        assert (await audited(store)).faults == verdict.faults  # of the hours that are not kept here
        assert await said(store, tmp_path / f"{number}") == expected
        assert (await compact(store, tmp_path / "c")).committed == ()
        done = await expire(store)
        assert (done.refused, store.segments) == ((), [])
        assert (await audited(store)).charged_picousd == verdict.charged_picousd


async def test_two_at_once_and_a_compaction_beside_them(objects: dict[str, bytes], tmp_path: Path) -> None:
    late = sorted(key for key in objects if key.startswith(layout.segments()))[-4:]
    store = Store({key: body for key, body in objects.items() if key not in late})
    expected = await said(Store(objects), tmp_path / "a")
    await compact(store, tmp_path / "c")
    store.objects |= {key: objects[key] for key in late}
    one, other, made = await asyncio.gather(expire(store), expire(store), compact(store, tmp_path / "c", at_ns=NOW_NS))
    assert one.refused == other.refused == made.refused == ()
    assert store.segments == late  # their manifest is new
    assert await said(store, tmp_path / "b") == expected
    assert not (await audited(store)).faults


async def test_a_late_segment_of_an_expired_hour_is_a_generation_of_its_own(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    """Nothing that has expired is needed again, and the bytes are those of a ledger that never expired."""
    late = sorted(key for key in objects if "/hr=13/" in key)[-2:]
    store = Store({key: body for key, body in objects.items() if key not in late})
    await compact(store, tmp_path / "c")
    unexpired = Store(store.objects)
    assert (await expire(store)).expired
    before = dict(store.objects)
    for each in (store, unexpired):
        each.objects |= {key: objects[key] for key in late}
    [made] = (await compact(store, tmp_path / "fresh", at_ns=NOW_NS)).committed
    assert (made.hr, made.generation, [one.key for one in made.inputs]) == ("13", 1, late)
    assert (await compact(unexpired, tmp_path / "c", at_ns=NOW_NS)).committed == (made,)
    keys = store.keys(layout.COMPACTED)
    assert {key: store.objects[key] for key in keys} == {key: unexpired.objects[key] for key in keys}
    assert {key: store.objects[key] for key in before} == before
    assert await said(store, tmp_path / "a") == await said(Store(objects), tmp_path / "b")
    assert [one.generation for one in (await expire(store, now_ns=NOW_NS + 8 * DAY_NS)).expired] == [1]
    assert await said(store, tmp_path / "a2") == await said(Store(objects), tmp_path / "b")
    assert not (await audited(store)).faults


async def test_a_segment_that_comes_again_counts_once_and_expires_again(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    """A gateway whose answer was lost writes again from its disk, weeks later, and finds nothing there."""
    store = opened(whole)
    expected = await said(store, tmp_path / "a")
    await expire(store)
    again = max(key for key in whole if "/hr=13/" in key and key.startswith(layout.segments()))
    store.objects[again] = whole[again]
    assert (await compact(store, tmp_path / "c", at_ns=NOW_NS)).committed == ()
    assert await said(store, tmp_path / "b") == expected
    assert not (await audited(store)).faults
    assert [(one.hr, one.segments) for one in (await expire(store)).expired] == [("13", 1)]
    store.objects[again] = gzip.compress(gzip.decompress(whole[again]) + b"\n", 1, mtime=0)
    assert {one.kind for one in (await audited(store)).faults} >= {"broken_chain"}
    done = await expire(store)
    assert ([one.kind for one in done.refused], store.segments) == (["broken_chain"], [again])


async def test_expired_is_told_from_dropped(objects: dict[str, bytes], tmp_path: Path) -> None:
    late = sorted(key for key in objects if key.startswith(layout.segments()))[-4:]
    store = Store({key: body for key, body in objects.items() if key not in late})
    await compact(store, tmp_path / "c")
    await expire(store)
    store.objects |= {key: objects[key] for key in late}
    assert not (await audited(store)).faults
    del store.objects[late[1]]
    assert [(one.kind, one.is_fault) for one in (await audited(store)).faults] == [("gap", True)]
    store.objects[late[1]] = objects[late[1]]
    lost = min(manifests(store))
    del store.objects[lost]
    assert "gap" in {one.kind for one in (await audited(store)).faults}


Damage = Callable[[Store, str, Manifest], None]


def _no_file(store: Store, _: str, manifest: Manifest) -> None:
    del store.objects[manifest.files[2].key]


def _flipped_file(store: Store, _: str, manifest: Manifest) -> None:
    body = bytearray(store.objects[manifest.files[3].key])
    body[len(body) // 2] ^= 1
    store.objects[manifest.files[3].key] = bytes(body)


def _flipped_segment(store: Store, _: str, manifest: Manifest) -> None:
    body = bytearray(store.objects[manifest.inputs[0].key])
    body[-9] ^= 1
    store.objects[manifest.inputs[0].key] = bytes(body)


def _edited_digest(store: Store, key: str, manifest: Manifest) -> None:
    """Manifest and plan alike: what the files have says otherwise."""
    inputs = (msgspec.structs.replace(manifest.inputs[0], sha256="0" * 64), *manifest.inputs[1:])
    _rewritten(store, key, msgspec.structs.replace(manifest, inputs=inputs))


def _a_record_as_input(store: Store, key: str, manifest: Manifest) -> None:
    name = store.keys(layout.containers())[0]
    extra = msgspec.structs.replace(manifest.inputs[0], key=name, sha256=codec.sha256(store.objects[name]))
    _rewritten(store, key, msgspec.structs.replace(manifest, inputs=(*manifest.inputs, extra)))


def _another_hours_segment(store: Store, key: str, manifest: Manifest) -> None:
    other = next(one for one in manifests(store).values() if one.hr != manifest.hr).inputs[0]
    _rewritten(store, key, msgspec.structs.replace(manifest, inputs=(*manifest.inputs, other)))


def _rewritten(store: Store, key: str, manifest: Manifest) -> None:
    store.objects[key] = codec.encode(manifest)
    plan = Plan(manifest.dt, manifest.hr, manifest.generation, manifest.inputs)
    store.objects[layout.compacted("plans", manifest.dt, manifest.hr, manifest.generation)] = codec.encode(plan)


def _no_plan(store: Store, _: str, manifest: Manifest) -> None:
    del store.objects[layout.compacted("plans", manifest.dt, manifest.hr, manifest.generation)]


def _newer_manifest(store: Store, key: str, _: Manifest) -> None:
    store.objects[key] = store.objects[key].replace(b'"schema_version":2', b'"schema_version":3')


@pytest.mark.parametrize(
    "damage",
    [
        _no_file, _flipped_file, _flipped_segment, _edited_digest, _a_record_as_input, _another_hours_segment, _no_plan,
        _newer_manifest,
    ],
)  # fmt: skip
async def test_what_is_not_proven_stays(whole: dict[str, bytes], damage: Damage) -> None:
    store = opened(whole)
    key, manifest = next(one for one in manifests(store).items() if one[1].hr == "13")
    damage(store, key, manifest)
    before = dict(store.objects)
    done = await expire(store)
    assert done.refused
    assert all(one.is_fault for one in done.refused)
    hour = {name for name in before if "/hr=13/" in name or not name.startswith(layout.segments())}
    assert {name: store.objects[name] for name in hour} == {name: before[name] for name in hour}
    assert "13" not in {one.hr for one in done.expired}


async def test_what_the_files_columns_do_not_hold_stays(objects: dict[str, bytes], tmp_path: Path) -> None:
    """A newer gateway's field, compacted by this release, which has no column for it."""
    key = max(key for key in objects if "/hr=13/" in key)
    lines = gzip.decompress(objects[key]).splitlines()
    lines[1] = lines[1][:-1] + b',"discount":"1/2"}'
    newer = gzip.compress(b"\n".join(lines) + b"\n", 1, mtime=0)
    store = Store({name: body for name, body in objects.items() if name not in after(key, objects)} | {key: newer})
    await compact(store, tmp_path)
    done = await expire(store)
    assert [(one.kind, one.key) for one in done.refused] == [("newer_version", key)]
    assert key in store.objects


def after(key: str, objects: Iterable[str]) -> set[str]:
    """Segments of the same life that carry this one's digest, or that one's."""
    return {name for name in objects if name.startswith(layout.segments()) and name.split("/")[4] > key.split("/")[4]}


async def test_a_file_with_other_columns_stays_with_its_segments(whole: dict[str, bytes], tmp_path: Path) -> None:
    """As the first version wrote charges; the rest of the hour's files are as they are now."""
    store = opened(whole)
    key, manifest = next(one for one in manifests(store).items() if one[1].hr == "13")
    file = manifest.files[1]
    path, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    path.write_bytes(store.objects[file.key])
    duckdb.connect().execute(f"COPY (SELECT * EXCLUDE (beyond) FROM '{path}') TO '{old}' (FORMAT parquet)")
    body = store.objects[file.key] = old.read_bytes()
    older = msgspec.structs.replace(file, sha256=codec.sha256(body), size_bytes=len(body))
    files = tuple(older if one == file else one for one in manifest.files)
    store.objects[key] = codec.encode(msgspec.structs.replace(manifest, files=files))
    done = await expire(store)
    assert ["other columns" in one.message or "damaged" in one.kind for one in done.refused] == [True]
    assert set(store.segments) == {given.key for given in manifest.inputs}


async def test_a_generation_that_is_only_planned_is_left_alone(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = Store(objects)
    store.faults.extend(["none", "none", "none", "unavailable"])
    with pytest.raises(StoreUnavailable):
        await compact(store, tmp_path)
    store.modified_ns = dict.fromkeys(store.objects, COMPACTED_NS)
    assert (await expire(store)).expired == ()
    assert store.segments == [key for key in sorted(objects) if key.startswith(layout.segments())]


async def test_an_incremental_listing_from_before_finds_what_expired_since(
    objects: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 0)
    store = Store(objects)
    expected = await said(store, tmp_path / "copies")
    await compact(store, tmp_path / "c")
    assert (await expire(store)).expired
    assert await said(store, tmp_path / "copies") == expected


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(use_true_random=False))
def test_reports_are_equal_whatever_comes_late_and_expires_when(
    objects: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, random: Random
) -> None:
    """Any order of arrivals, compactions and expiries: a report says at every moment what it says of the segments alone."""
    folder = tmp_path_factory.mktemp("any")
    keys = sorted(key for key in objects if key.startswith(layout.segments()))
    turns = [random.randrange(3) for _ in keys]
    compacts = [random.random() < 0.7 for _ in range(3)]
    passes_ns = [random.choice([DAY_NS, 8 * DAY_NS]) for _ in range(3)]

    async def run() -> None:
        plain = Store({key: body for key, body in objects.items() if not key.startswith(layout.segments())})
        store, now_ns = Store(plain.objects), COMPACTED_NS
        for turn in range(3):
            arrived = {key: objects[key] for key, at in zip(keys, turns, strict=True) if at == turn}
            plain.objects |= arrived
            store.objects |= arrived
            if compacts[turn]:
                assert (await compact(store, folder / "c", at_ns=now_ns)).refused == ()
            now_ns += passes_ns[turn]
            assert (await expire(store, now_ns=now_ns)).refused == ()
            reports = [
                await costs.read(one, folder / name, now_ns=listed) for one, name in ((store, "s"), (plain, "p"))
            ]
            assert reports[0] == reports[1]
        verdicts = [await audited(store), await audited(plain)]
        assert msgspec.structs.replace(verdicts[0], expired=0) == verdicts[1]

    asyncio.run(run())


async def test_s3_tells_when_a_manifest_was_written(
    whole: dict[str, bytes], moto: servers.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contextlib.aclosing(open_store(f"s3://{stores.bucket(moto, monkeypatch)}/team")) as store:
        for key, body in whole.items():
            await store.put_if_absent(key, body)
        now_ns = time.time_ns()
        early = await expiring.expire(store, older_ns=WEEK_NS, now_ns=now_ns + 6 * DAY_NS)
        done = await expiring.expire(store, older_ns=WEEK_NS, now_ns=now_ns + 8 * DAY_NS)
        left = {info.key async for info in store.list("")}
    assert (early.expired, early.refused, done.refused) == ((), (), ())
    assert left == {key for key in whole if not key.startswith(layout.segments())}


def ran(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["expire", "--store", str(root), *arguments])


@pytest.fixture
def root(whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, body in whole.items():
        path = tmp_path / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        os.utime(path, ns=(COMPACTED_NS, COMPACTED_NS))
    monkeypatch.setattr(time, "time_ns", lambda: NOW_NS)
    return tmp_path / "store"


def test_the_command_says_what_it_did(root: Path) -> None:
    def held() -> list[Path]:
        return sorted(root.glob("ledger/v1/dt=*/*/*/*"))

    before = held()
    rehearsed = ran(root, "--dry-run")
    assert (rehearsed.exit_code, held()) == (0, before)
    assert "T13:00Z generation 0: " in rehearsed.output
    assert " bytes would be deleted\n" in rehearsed.output
    done = ran(root, "--format", "json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["refused"], report["is_dry_run"], held()) == (0, [], False, [])
    assert sum(one["segments"] for one in report["expired"]) == len(before)
    assert ran(root).output == "nothing to expire: no compacted hour that is old enough has segments\n"
    said = CliRunner().invoke(command, ["verify", "--store", str(root)]).output
    assert f"{len(before):,} of the segments have expired" in said
    assert said.endswith("the ledger is whole\n")


def test_the_command_refuses_less_than_a_week_and_what_is_damaged(root: Path) -> None:
    for age in ("6d", "0d"):
        refused = ran(root, "--older-than", age)
        assert refused.exit_code == 2
        assert "at least 7 days" in refused.output
    for age in ("7", "-7d", "1w", "7d "):
        assert "is no number of days" in ran(root, "--older-than", age).output
    assert ran(root, "--older-than", "9d").output.startswith("nothing to expire")
    next(root.glob("compacted/v1/requests/*/hr=13/*.parquet")).unlink()
    done = ran(root)
    assert done.exit_code == 1
    assert "REFUSED (missing_file): compacted/v1/requests/" in done.output
    assert list(root.glob("ledger/v1/dt=*/hr=13/*/*"))

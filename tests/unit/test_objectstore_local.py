"""What only the local store can get wrong: folders and files, writes that are cancelled, locks, URLs.

What it shares with the S3 store is in `tests/integration/test_objectstore.py`; disks and other processes are in
`test_objectstore_disks.py`.
"""

import asyncio
import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BucketNotFound,
    ObjectNotFound,
    PreconditionFailed,
    SettingsError,
    StoreUnavailable,
)
from gateway.objectstore import durable
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


async def test_an_object_is_a_plain_file(store: LocalStore, tmp_path: Path) -> None:
    await store.put_if_absent("a/b.json", b"body")

    assert (tmp_path / "a" / "b.json").read_bytes() == b"body"


async def test_readers_of_other_users_can_read_objects(store: LocalStore, tmp_path: Path) -> None:
    await store.put_if_absent("key", b"")

    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("key", [".tmp", ".tmp/x", ".tmp/locks/001"])
async def test_the_staging_folder_holds_no_objects(store: LocalStore, key: str) -> None:
    with pytest.raises(ValueError, match="unfinished"):
        await store.put_if_absent(key, b"")


async def test_an_invalid_key_touches_no_disk(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for key in ("../outside", "/outside", "a/../../outside"):
        with pytest.raises(ValueError, match="key"):
            await LocalStore(tmp_path / "root").put_if_absent(key, b"")
    with pytest.raises(ValueError, match="key"):
        await LocalStore(tmp_path / "root").folders("../")

    assert list((tmp_path / "root").iterdir()) == []


async def test_an_object_and_a_folder_cannot_share_a_name(store: LocalStore) -> None:
    await store.put_if_absent("object", b"1")
    await store.put_if_absent("folder/x", b"1")

    for key in ("object/x", "object/x/y", "folder"):
        with pytest.raises(PreconditionFailed):
            await store.put_if_absent(key, b"2")
        with pytest.raises(PreconditionFailed):
            await store.put_if_match(key, b"2", "etag")
        with pytest.raises(ObjectNotFound):
            await store.get(key)
        await store.delete(key)
    assert [row.key async for row in store.list("")] == ["folder/x", "object"]


segments = st.text(alphabet="a-/.é", min_size=1, max_size=6).filter(
    lambda key: not any(part in {"", ".", ".."} for part in key.split("/"))
)


@given(
    keys=st.sets(segments, max_size=12), prefix=st.text("a-/.é", max_size=3), start_after=st.text("a-/.é", max_size=4)
)
def test_a_listing_is_the_sorted_keys_that_match(keys: set[str], prefix: str, start_after: str) -> None:
    possible = {key for key in keys if not any(key != other and other.startswith(f"{key}/") for other in keys)}

    with tempfile.TemporaryDirectory() as root:
        for key in possible:
            path = Path(root, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        listed = asyncio.run(listing(LocalStore(Path(root)), prefix, start_after))

    expected = [key for key in possible if key.startswith(prefix) and key.encode() > start_after.encode()]
    assert listed == sorted(expected, key=str.encode)


async def listing(store: LocalStore, prefix: str, start_after: str) -> list[str]:
    return [row.key async for row in store.list(prefix, start_after=start_after)]


async def test_a_file_whose_name_can_be_no_key_is_no_object(store: LocalStore, tmp_path: Path) -> None:
    await store.put_if_absent("keys/a.json", b"1")
    for name in (b"\xff.json", b"back\\slash", b"\xff"):
        (tmp_path / "keys" / os.fsdecode(name)).touch()
    stray = tmp_path / "keys" / os.fsdecode(b"\xfe")
    stray.mkdir()
    (stray / "b.json").touch()

    assert await listing(store, "", "") == ["keys/a.json"]


async def test_a_cancelled_write_is_over_when_its_caller_hears_of_it(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, is_syncing = asyncio.get_running_loop(), asyncio.Event()
    fsync = os.fsync

    def announced_fsync(descriptor: int) -> None:
        loop.call_soon_threadsafe(is_syncing.set)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", announced_fsync)
    write = asyncio.create_task(store.put_if_absent("key", b"body"))
    await is_syncing.wait()
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write

    assert (tmp_path / "key").read_bytes() == b"body"  # it was not linked yet when the cancellation came
    assert files_in(tmp_path / ".tmp") == []


async def test_an_object_is_synced_before_its_name_and_both_before_the_answer(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("sync file" if path.is_file() else f"sync /{path.relative_to(tmp_path)}")
        fsync(descriptor)

    def recorded_link(source: str, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_link)
    etag = await store.put_if_absent("new/folder/key", b"1")

    assert steps == ["sync file", "link", "sync /new/folder", "sync /new", "sync /."]
    steps.clear()

    await store.put_if_match("new/folder/key", b"2", etag)

    assert steps == ["sync file", "sync /new/folder"]


async def test_a_lock_that_is_never_released_is_named(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = await store.put_if_absent("key", b"1")
    await store.delete("another key")  # makes the lock folder
    monkeypatch.setattr(durable, "LOCK_WAIT_S", 0.01)
    with contextlib.ExitStack() as held:
        for number in range(256):
            file = held.enter_context((tmp_path / ".tmp" / "locks" / f"{number:03d}").open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)

        with pytest.raises(StoreUnavailable, match="locked"):
            await store.put_if_match("key", b"2", etag)

    await store.put_if_match("key", b"2", etag)


async def test_a_root_that_is_a_file_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = LocalStore(tmp_path / "file")

    with pytest.raises(BucketNotFound):
        await store.put_if_absent("key", b"")
    with pytest.raises(BucketNotFound):
        await store.get("key")


async def test_create_makes_the_root_and_its_parents(tmp_path: Path) -> None:
    store = open_store((tmp_path / "a" / "b c").as_uri(), create=True)

    await store.put_if_absent("key", b"body")

    assert (tmp_path / "a" / "b c" / "key").exists()


def test_a_store_opens_again_at_its_own_url(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "with space%20")

    assert open_store(store.url).url == store.url


def test_a_bare_path_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert open_store("./store").url == (tmp_path / "store").as_uri()
    assert open_store(str(tmp_path)).url == tmp_path.as_uri()


@pytest.mark.parametrize(
    "url", ["", "gs://bucket/x", "http://host/x", "file://store", "file://host/x", "s3://", "s3://UPPER/x", "s3:///x"]
)
def test_other_urls_are_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(SettingsError, match="s3://bucket/prefix"):
        open_store(url)


def test_a_root_that_cannot_be_made_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="cannot create"):
        open_store(str(tmp_path / "file" / "store"), create=True)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]

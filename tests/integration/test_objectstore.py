"""What an object store promises, asked of every store there is: a local folder, moto and SeaweedFS, through `open_store`.

A new implementation is one more parameter here and in `test_objectstore_streams.py`. Faults between us and S3:
`test_objectstore_faults.py`.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from gateway.errors import (
    BucketNotFound,
    ObjectNotFound,
    PreconditionFailed,
    StoreRefused,
    StoreUnavailable,
)
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import servers, stores
from tests.support.largeobjects import LARGE, SHA256, chunks_of

Call = Callable[[], Awaitable[object]]


@pytest.fixture(params=["local", "moto", "seaweedfs"])
def url(request: pytest.FixtureRequest) -> str:
    return stores.empty(request, "some prefix")  # one that needs quoting


@pytest.fixture
async def store(url: str) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(url)) as opened:
        yield opened


async def test_what_was_put_is_what_is_got(store: ObjectStore) -> None:
    etag = await store.put_if_absent("a/b.json", b"body")

    found = await store.get("a/b.json")

    assert (found.body, found.etag) == (b"body", etag)
    assert (await store.head("a/b.json")).size == 4


async def test_an_object_tells_when_it_was_written(store: ObjectStore) -> None:
    """S3 in whole seconds, and by its own clock."""
    began_ns = time.time_ns()
    await store.put_if_absent("a/b.json", b"body")

    [listed] = [row async for row in store.list("a/")]

    assert listed == await store.head("a/b.json")
    assert began_ns - 2 * 10**9 < listed.modified_ns < time.time_ns() + 2 * 10**9


async def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    await store.put_if_absent("empty", b"")

    assert (await store.get("empty")).body == b""
    assert [chunk async for chunk in store.stream("empty")] == []


async def test_any_valid_key_is_kept_as_it_is(store: ObjectStore) -> None:
    keys = ["with space", "per%2Fcent", "ümläut/日本", "a+b=c&d?e#f", "'quoted\"", "~-._!()*"]
    for key in keys:
        await store.put_if_absent(key, key.encode())

    assert [(await store.get(key)).body for key in keys] == [key.encode() for key in keys]
    assert [row.key async for row in store.list("")] == sorted(keys)


async def test_a_key_that_some_store_could_not_hold_is_a_programming_error(store: ObjectStore) -> None:
    for key in ("", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "a\0b", "x" * 256, "x/" * 600 + "x"):
        for call in calls_with(store, key):
            with pytest.raises(ValueError, match="key"):
                await call()


async def test_an_unchanged_object_is_not_sent_again(store: ObjectStore) -> None:
    etag = await store.put_if_absent("alias", b"1")
    assert await store.get_if_changed("alias", etag) is None

    await store.put_if_match("alias", b"2", etag)

    changed = await store.get_if_changed("alias", etag)
    assert changed is not None
    assert changed.body == b"2"


async def test_an_object_is_created_once(store: ObjectStore) -> None:
    await store.put_if_absent("key", b"first")

    with pytest.raises(PreconditionFailed):
        await store.put_if_absent("key", b"second")

    assert (await store.get("key")).body == b"first"


async def test_the_same_bytes_do_not_create_an_object_twice(store: ObjectStore) -> None:
    await store.put_if_absent("claim", b"same")

    with pytest.raises(PreconditionFailed):
        await store.put_if_absent("claim", b"same")


async def test_only_the_version_that_was_read_is_replaced(store: ObjectStore) -> None:
    first = await store.put_if_absent("key", b"1")
    second = await store.put_if_match("key", b"2", first)

    with pytest.raises(PreconditionFailed):
        await store.put_if_match("key", b"3", first)

    assert second != first
    assert await store.get_if_changed("key", second) is None


async def test_a_missing_object_cannot_be_replaced(store: ObjectStore) -> None:
    etag = await store.put_if_absent("there", b"1")

    with pytest.raises(PreconditionFailed):
        await store.put_if_match("missing", b"2", etag)

    with pytest.raises(ObjectNotFound):
        await store.get("missing")


async def test_a_range_ends_where_the_object_ends(store: ObjectStore) -> None:
    await store.put_if_absent("key", b"0123456789")

    for start, stop in ((0, 1), (0, 10), (3, 7), (9, 10), (8, 100), (10, 11), (50, 60)):
        assert await store.get_range("key", start, stop) == b"0123456789"[start:stop]


async def test_a_range_without_bytes_is_a_programming_error(store: ObjectStore) -> None:
    for start, stop in ((-1, 1), (2, 2), (3, 2)):
        with pytest.raises(ValueError, match="range"):
            await store.get_range("key", start, stop)


async def test_a_range_is_of_the_version_asked_for(store: ObjectStore) -> None:
    first = await store.put_if_absent("key", b"0123456789")
    assert await store.get_range("key", 2, 4, etag=first) == b"23"

    await store.put_if_match("key", b"abcdefghij", first)

    with pytest.raises(PreconditionFailed):
        await store.get_range("key", 2, 4, etag=first)


async def test_deleting_is_idempotent_and_frees_the_key(store: ObjectStore) -> None:
    await store.put_if_absent("a/b", b"1")

    await store.delete("a/b")
    await store.delete("a/b")

    await store.put_if_absent("a/b", b"2")
    assert (await store.get("a/b")).body == b"2"


async def test_a_missing_key_is_named(store: ObjectStore) -> None:
    await store.put_if_absent("a", b"an object whose name is not a folder's")
    for key in ("b", "b/c", "a/b"):
        for call in reads(store, key):
            with pytest.raises(ObjectNotFound, match=key):
                await call()


async def test_a_listing_passes_a_thousand_keys_in_order(store: ObjectStore) -> None:
    keys = [f"log/{number:05d}.json" for number in range(1003)]
    await in_batches(16, [lambda key=key: store.put_if_absent(key, b"x") for key in reversed(keys)])

    assert [row.key async for row in store.list("log/")] == keys
    assert [row.key async for row in store.list("log/", start_after=keys[1000])] == keys[1001:]


async def test_a_prefix_need_not_be_a_folder(store: ObjectStore) -> None:
    for key in ("dt=1/a", "dt=1/b", "dt=2/a", "du"):
        await store.put_if_absent(key, b"12")

    assert [(row.key, row.size) async for row in store.list("dt=1")] == [("dt=1/a", 2), ("dt=1/b", 2)]
    assert [row.key async for row in store.list("dt=1/b")] == ["dt=1/b"]
    assert [row.key async for row in store.list("d", start_after="dt=1/b")] == ["dt=2/a", "du"]
    assert [row.key async for row in store.list("nothing")] == []


@pytest.mark.parametrize("url", ["local", "moto"], indirect=True)
async def test_a_listing_is_in_order_of_bytes_not_of_folders(store: ObjectStore) -> None:
    keys = ["a-b", "a.b", "a/b", "a0", "é", "日", "𝄞"]
    for key in reversed(keys):
        await store.put_if_absent(key, b"")

    assert [row.key async for row in store.list("")] == keys
    assert [row.key async for row in store.list("", start_after="a-b")] == keys[1:]


@pytest.mark.parametrize("url", ["seaweedfs"], indirect=True)
async def test_seaweedfs_lists_a_folder_before_the_names_that_extend_it(store: ObjectStore) -> None:
    """The limit named in `gateway.objectstore.s3`. When this fails, SeaweedFS lists as S3 does: take the limit out."""
    await store.put_if_absent("a-b", b"")
    await store.put_if_absent("a/b", b"")

    assert [row.key async for row in store.list("")] == ["a/b", "a-b"]
    assert [row.key async for row in store.list("", start_after="a-b")] == []


async def test_a_key_that_some_store_could_not_hold_is_not_listed(
    moto: servers.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon's console makes objects whose key ends with a slash, for folders."""
    bucket = stores.bucket(moto, monkeypatch)
    with moto.client() as client:
        for key in ("keys/", "keys/a.json", "keys//b.json", "keys/back\\slash", f"keys/{'x' * 300}"):
            client.put_object(Bucket=bucket, Key=key, Body=b"1")
    async with contextlib.aclosing(open_store(f"s3://{bucket}")) as store:
        assert [row.key async for row in store.list("keys/")] == ["keys/a.json"]


async def test_folders_are_the_first_segments_of_longer_keys(store: ObjectStore) -> None:
    for key in ("models/b/v/1", "models/b/v/2", "models/a/v/1", "models/file", "other/x"):
        await store.put_if_absent(key, b"")

    assert await store.folders("models/") == ["a", "b"]
    assert await store.folders("") == ["models", "other"]
    assert await store.folders("missing/") == []


@pytest.mark.parametrize("url", ["local", "moto"], indirect=True)  # SeaweedFS tidies emptied folders up some time later
async def test_a_folder_goes_with_its_last_object(store: ObjectStore) -> None:
    await store.put_if_absent("models/gone/v/1", b"")

    await store.delete("models/gone/v/1")

    assert await store.folders("models/") == []


@pytest.mark.parametrize("races", [1, pytest.param(5, marks=pytest.mark.e2e)])
async def test_of_twelve_writers_one_creates_the_object(url: str, races: int) -> None:
    async with contextlib.aclosing(open_store(url)) as one, contextlib.aclosing(open_store(url)) as other:
        for race in range(races):  # SeaweedFS takes 4 s for each: its lock is polled once a second
            bodies = [f"writer {number}".encode() for number in range(12)]
            attempts = [(one, other)[n % 2].put_if_absent(f"race/{race}", body) for n, body in enumerate(bodies)]

            outcomes = await asyncio.gather(*attempts, return_exceptions=True)

            winners = [body for body, outcome in zip(bodies, outcomes, strict=True) if isinstance(outcome, str)]
            assert winners == [(await one.get(f"race/{race}")).body]
            assert sum(isinstance(outcome, PreconditionFailed) for outcome in outcomes) == 11


async def test_no_compare_and_swap_is_lost(url: str) -> None:
    async with contextlib.aclosing(open_store(url)) as one, contextlib.aclosing(open_store(url)) as other:
        await one.put_if_absent("counter", b"0")

        await asyncio.gather(*(increments((one, other)[n % 2], times=4) for n in range(6)))

        assert (await one.get("counter")).body == b"24"


async def increments(store: ObjectStore, times: int) -> None:
    while times:
        found = await store.get("counter")
        with contextlib.suppress(PreconditionFailed):
            await store.put_if_match("counter", b"%d" % (int(found.body) + 1), found.etag)
            times -= 1


async def test_a_store_may_first_be_used_by_many_at_once(store: ObjectStore) -> None:
    outcomes = await asyncio.gather(*(store.get("missing") for _ in range(12)), return_exceptions=True)

    assert all(isinstance(outcome, ObjectNotFound) for outcome in outcomes)


async def test_a_missing_bucket_or_root_is_named(url: str) -> None:
    if url.startswith("file:"):
        shutil.rmtree(urlsplit(url).path)
    missing = url if url.startswith("file:") else "s3://no-such-bucket/prefix"
    async with contextlib.aclosing(open_store(missing)) as store:
        for call in every_call(store):
            with pytest.raises(BucketNotFound, match=r"no-such-bucket|folder"):
                await call()


@pytest.mark.parametrize("url", ["seaweedfs"], indirect=True)  # moto takes any credentials
@pytest.mark.parametrize(("variable", "value"), [("AWS_ACCESS_KEY_ID", "unknown"), ("AWS_SECRET_ACCESS_KEY", "wrong")])
async def test_refused_credentials_are_named(
    url: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    async with contextlib.aclosing(open_store(url)) as store:
        for call in every_call(store):
            with pytest.raises(StoreRefused, match="credentials") as refusal:
                await call()
            assert "only-for-tests" not in str(refusal.value)


@pytest.mark.parametrize("url", ["moto"], indirect=True)
async def test_missing_credentials_are_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with contextlib.aclosing(open_store(url)) as store:
        with pytest.raises(StoreRefused, match="credentials"):
            await store.get("a")


async def test_a_store_that_does_not_listen_is_unavailable_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = servers.free_ports(1)
    stores.use(servers.S3Server(url=f"http://127.0.0.1:{port}"), monkeypatch)
    async with contextlib.aclosing(open_store("s3://bucket")) as store, asyncio.timeout(10):
        with pytest.raises(StoreUnavailable, match="no usable answer"):
            await store.put_if_absent("a", b"")


def reads(store: ObjectStore, key: str) -> list[Call]:
    return [
        lambda: store.get(key),
        lambda: store.get_if_changed(key, "etag"),
        lambda: store.get_range(key, 0, 1),
        lambda: store.head(key),
        lambda: list_of(store.stream(key)),
    ]


def calls_with(store: ObjectStore, key: str) -> list[Call]:
    """All but `put_if_match`, which SeaweedFS answers with "precondition failed" before it looks for the bucket."""
    return [
        *reads(store, key),
        lambda: store.put_if_absent(key, b""),
        lambda: store.put_stream_if_absent(key, chunks_of(LARGE), sha256=SHA256, size=len(LARGE)),
        lambda: store.delete(key),
    ]


def every_call(store: ObjectStore) -> list[Call]:
    return [*calls_with(store, "a"), lambda: list_of(store.list("")), lambda: store.folders("")]


async def list_of(rows: AsyncIterator[object]) -> list[object]:
    return [row async for row in rows]


async def in_batches(width: int, calls: list[Call]) -> None:
    for start in range(0, len(calls), width):
        await asyncio.gather(*(call() for call in calls[start : start + width]))

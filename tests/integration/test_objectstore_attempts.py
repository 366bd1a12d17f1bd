"""Requests to the store are counted as they are sent, each retry for itself: S3 through a proxy that counts too, and a folder."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import ObjectNotFound, PreconditionFailed, StoreUnavailable
from gateway.objectstore.attempts import Attempts
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import faultproxy, servers, stores
from tests.support.faultproxy import Fault, FaultProxy, refusal

SLOW_DOWN = refusal(503, "SlowDown")


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
async def proxy(moto: servers.S3Server) -> AsyncIterator[FaultProxy]:
    async with faultproxy.running(moto.url) as running:
        yield running


@pytest.fixture
async def store(
    moto: servers.S3Server, proxy: FaultProxy, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    bucket = stores.bucket(moto, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    async with contextlib.aclosing(open_store(f"s3://{bucket}", attempts=attempts)) as opened:
        yield opened


async def test_each_retry_is_an_attempt(store: ObjectStore, proxy: FaultProxy, attempts: Attempts) -> None:
    proxy.faults.append(Fault("PUT", times=2, answer=SLOW_DOWN))
    await store.put_if_absent("key", b"body")
    assert attempts.counts == {("PutObject", "failed"): 2, ("PutObject", "ok"): 1}
    proxy.faults.append(Fault("GET", times=99, answer=SLOW_DOWN))
    with pytest.raises(StoreUnavailable):
        await store.get("key")
    assert attempts.counts["GetObject", "failed"] == proxy.sends("GET") == 3
    assert sum(attempts.counts.values()) == len(proxy.seen)


async def test_refusals_are_told_from_failures(store: ObjectStore, proxy: FaultProxy, attempts: Attempts) -> None:
    etag = await store.put_if_absent("key", b"body")
    with pytest.raises(PreconditionFailed):
        await store.put_if_absent("key", b"other")
    with pytest.raises(ObjectNotFound):
        await store.get("nothing")
    assert await store.get_if_changed("key", etag) is None
    assert [row.key async for row in store.list("")] == ["key"]
    await store.delete("key")
    assert attempts.counts == {
        ("PutObject", "ok"): 1,
        ("PutObject", "refused"): 1,
        ("HeadObject", "ok"): 1,  # whether the winner is this very write
        ("GetObject", "refused"): 1,
        ("GetObject", "ok"): 1,
        ("ListObjectsV2", "ok"): 1,
        ("DeleteObject", "ok"): 1,
    }
    assert sum(attempts.counts.values()) == len(proxy.seen)


async def test_an_answer_that_is_cut_off_or_not_waited_for_is_counted_once(
    store: ObjectStore, proxy: FaultProxy, attempts: Attempts
) -> None:
    await store.put_if_absent("key", b"body")
    arrived, never = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        arrived.set()
        await never.wait()

    proxy.faults.append(Fault("GET", is_asked=True, meanwhile=hold))
    call = asyncio.create_task(store.get("key"))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert attempts.counts == {("PutObject", "ok"): 1, ("GetObject", "abandoned"): 1}
    assert (await store.get("key")).body == b"body"
    assert attempts.counts["GetObject", "ok"] == attempts.counts["GetObject", "abandoned"] == 1


async def test_parts_of_a_large_object_are_attempts(store: ObjectStore, attempts: Attempts) -> None:
    body = bytes(9 << 20)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    await store.put_stream_if_absent("large", chunks(), sha256=hashlib.sha256(body).hexdigest(), size=len(body))
    assert attempts.counts == {
        (
            "HeadObject",
            "refused",
        ): 1,  # before gigabytes are sent in vain; a HEAD does not say whether the bucket is there
        ("HeadBucket", "ok"): 1,
        ("CreateMultipartUpload", "ok"): 1,
        ("UploadPart", "ok"): 2,
        ("CompleteMultipartUpload", "ok"): 1,
    }


async def test_a_folders_calls_are_counted_by_how_they_end(tmp_path: Path, attempts: Attempts) -> None:
    store = open_store(tmp_path.as_uri(), attempts=attempts)
    await store.put_if_absent("a/key", b"body")
    with pytest.raises(PreconditionFailed):
        await store.put_if_absent("a/key", b"other")
    with pytest.raises(ObjectNotFound):
        await store.get("nothing")
    assert b"".join([chunk async for chunk in store.stream("a/key")]) == b"body"
    assert (await store.head("a/key")).size == 4
    await store.delete("a/key")
    assert attempts.counts == {
        ("put", "ok"): 1,
        ("put", "refused"): 1,
        ("get", "refused"): 1,
        ("stream", "ok"): 1,
        ("head", "ok"): 1,
        ("delete", "ok"): 1,
    }
    await asyncio.to_thread(tmp_path.rename, tmp_path.with_name("away"))
    with pytest.raises(StoreUnavailable):
        await store.get("a/key")
    assert attempts.counts["get", "failed"] == 1

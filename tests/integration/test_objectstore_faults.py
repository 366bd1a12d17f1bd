"""What the S3 store makes of a network and a server that misbehave, seen through a proxy before a real server.

The subject is honesty: a write is reported as done, lost, or unknown, and each only when it is so.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest

from gateway.errors import PreconditionFailed, StoreFull, StoreRefused, StoreUnavailable
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import faultproxy, servers, stores
from tests.support.faultproxy import Fault, FaultProxy, refusal

LARGE = bytes(17 << 20)
CONFLICT = refusal(409, "ConditionalRequestConflict")


@pytest.fixture
def bucket(moto: servers.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    return stores.bucket(moto, monkeypatch)


@pytest.fixture
async def direct(bucket: str) -> AsyncIterator[ObjectStore]:
    """Another writer, whom no fault reaches."""
    async with contextlib.aclosing(open_store(f"s3://{bucket}")) as store:
        await store.folders("")  # connects now, before the proxy's address is set
        yield store


@pytest.fixture
async def proxy(
    moto: servers.S3Server, direct: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FaultProxy]:
    async with faultproxy.running(moto.url) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running


@pytest.fixture
async def store(bucket: str, proxy: FaultProxy) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(f"s3://{bucket}")) as opened:
        yield opened


# --- the answer is lost, the write is not


async def test_a_create_whose_answer_was_lost_succeeds(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.faults.append(Fault("PUT", keep_bytes=0))

    etag = await store.put_if_absent("key", b"ours")

    assert proxy.sends("PUT") == 2
    assert (await direct.get("key")).etag == etag


async def test_a_create_on_a_kept_connection_that_breaks_succeeds(store: ObjectStore, proxy: FaultProxy) -> None:
    """Here aiohttp sends again by itself and botocore never hears of it."""
    await store.put_if_absent("first", b"opens the connection")
    proxy.faults.append(Fault("PUT", keep_bytes=0))

    await store.put_if_absent("key", b"ours")

    assert proxy.sends("/key") == 3  # two PUTs, and the HEAD that finds our own id


async def test_a_lost_answer_does_not_make_another_writers_same_bytes_ours(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    await direct.put_if_absent("claim", b"same")
    proxy.faults.append(Fault("PUT", keep_bytes=0))

    with pytest.raises(PreconditionFailed):
        await store.put_if_absent("claim", b"same")


async def test_a_replacement_whose_answer_was_lost_succeeds(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    first = await direct.put_if_absent("key", b"1")
    proxy.faults.append(Fault("PUT", keep_bytes=0))

    second = await store.put_if_match("key", b"2", first)

    assert (await direct.get("key")).etag == second


async def test_a_replacement_that_may_have_been_replaced_is_not_called_lost(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    first = await direct.put_if_absent("key", b"1")

    async def replace_ours() -> None:
        await direct.put_if_match("key", b"3", (await direct.get("key")).etag)

    proxy.faults.append(Fault("PUT", answer=refusal(504, "GatewayTimeout"), is_asked=True, meanwhile=replace_ours))

    with pytest.raises(StoreUnavailable, match="unclear whether it was written"):
        await store.put_if_match("key", b"2", first)


@pytest.mark.parametrize("resend_hears", [refusal(404, "NoSuchUpload"), refusal(412, "PreconditionFailed")])
async def test_a_multipart_upload_whose_last_answer_was_lost_succeeds(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy, bucket: str, resend_hears: bytes
) -> None:
    """Moto completes an upload twice; S3 may answer the second request in either of these ways."""
    last_request = f"POST /{bucket}/blob?uploadId="
    proxy.faults += [Fault(last_request, keep_bytes=0), Fault(last_request, answer=resend_hears)]

    await put_large(store)

    assert proxy.sends(last_request) == 2
    assert (await direct.head("blob")).size == len(LARGE)


# --- conflicts


async def test_a_conflict_is_tried_again(store: ObjectStore, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("PUT", times=3, answer=CONFLICT))

    await store.put_if_absent("key", b"body")

    assert proxy.sends("PUT") == 4


async def test_endless_conflicts_are_neither_won_nor_lost(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    proxy.faults.append(Fault("PUT", times=100, answer=CONFLICT))

    with pytest.raises(StoreUnavailable, match="another write was in progress"):
        await store.put_if_absent("key", b"body")

    assert proxy.sends("PUT") == 5
    assert [row async for row in direct.list("")] == []


@pytest.mark.parametrize("answer", [CONFLICT, refusal(404, "NoSuchUpload")], ids=["conflict", "upload is gone"])
async def test_a_multipart_upload_that_fails_at_its_end_takes_the_parts_back(
    store: ObjectStore, bucket: str, moto: servers.S3Server, proxy: FaultProxy, answer: bytes
) -> None:
    proxy.faults.append(Fault(f"POST /{bucket}/blob?uploadId=", times=100, answer=answer))

    with pytest.raises(StoreUnavailable, match=r"409|NoSuchUpload"):
        await put_large(store)

    with moto.client() as client:
        assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


# --- a server in trouble


@pytest.mark.parametrize("answer", [refusal(503, "SlowDown"), refusal(500, "InternalError")])
async def test_trouble_that_passes_is_not_noticed(store: ObjectStore, proxy: FaultProxy, answer: bytes) -> None:
    proxy.faults.append(Fault("PUT", times=2, answer=answer))

    await store.put_if_absent("key", b"body")

    assert (await store.get("key")).body == b"body"


@pytest.mark.parametrize(
    ("answer", "error", "sends"),
    [
        (refusal(503, "SlowDown"), StoreUnavailable, 3),
        (refusal(500, "InternalError"), StoreUnavailable, 3),
        (refusal(403, "AccessDenied"), StoreRefused, 1),
        (refusal(400, "ExpiredToken"), StoreRefused, 1),
        (refusal(507, "XMinioStorageFull"), StoreFull, 1),
        (refusal(501, "NotImplemented"), StoreUnavailable, 1),
    ],
)
async def test_trouble_that_stays_is_named_after_a_bounded_number_of_sends(
    store: ObjectStore, proxy: FaultProxy, answer: bytes, error: type[StoreUnavailable], sends: int
) -> None:
    proxy.faults.append(Fault("PUT", times=100, answer=answer))

    with pytest.raises(StoreUnavailable) as refused:
        await store.put_if_absent("key", b"body")

    assert type(refused.value) is error
    assert proxy.sends("PUT") == sends


async def test_a_body_cut_short_is_never_taken_for_the_whole(
    store: ObjectStore, direct: ObjectStore, proxy: FaultProxy
) -> None:
    await direct.put_if_absent("key", bytes(100_000))
    proxy.faults.append(Fault("GET", times=100, keep_bytes=60_000))

    with pytest.raises(StoreUnavailable):
        await store.get("key")
    with pytest.raises(StoreUnavailable):
        await store.get_range("key", 0, 90_000)
    with pytest.raises(StoreUnavailable):
        _ = [chunk async for chunk in store.stream("key")]


async def put_large(store: ObjectStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield LARGE

    await store.put_stream_if_absent("blob", chunks(), sha256=hashlib.sha256(LARGE).hexdigest(), size=len(LARGE))

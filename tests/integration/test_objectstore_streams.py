"""What an object store promises of objects that are too large for memory, asked of every store there is."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.errors import (
    DigestMismatch,
    PreconditionFailed,
    StoreUnavailable,
)
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import servers, stores
from tests.support.largeobjects import LARGE, MIB, SHA256, chunks_of


@pytest.fixture(params=["local", "moto", "seaweedfs"])
def url(request: pytest.FixtureRequest) -> str:
    return stores.empty(request, "some prefix")  # one that needs quoting


@pytest.fixture
async def store(url: str) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(url)) as opened:
        yield opened


async def test_a_large_object_arrives_whole_in_bounded_chunks(store: ObjectStore) -> None:
    await store.put_stream_if_absent("blob", chunks_of(LARGE), sha256=SHA256, size=len(LARGE))

    chunks = [chunk async for chunk in store.stream("blob", chunk_bytes=MIB)]

    assert max(map(len, chunks)) <= MIB
    assert hashlib.sha256(b"".join(chunks)).hexdigest() == SHA256
    assert await store.get_range("blob", 8 * MIB - 2, 8 * MIB + 2) == LARGE[8 * MIB - 2 : 8 * MIB + 2]


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
async def test_a_small_object_can_be_streamed_too(store: ObjectStore, size: int) -> None:
    body = LARGE[:size]

    await store.put_stream_if_absent("blob", chunks_of(body), sha256=hashlib.sha256(body).hexdigest(), size=size)

    assert (await store.get("blob")).body == body


@pytest.mark.parametrize(
    ("sha256", "size", "body"),
    [
        ("0" * 64, len(LARGE), LARGE),
        (SHA256, len(LARGE), LARGE[:-1]),
        (SHA256, len(LARGE), LARGE + b"x"),
        (hashlib.sha256(b"small").hexdigest(), 5, b"smell"),
    ],
    ids=["digest", "short", "long", "small"],
)
async def test_a_stream_that_is_not_as_promised_leaves_nothing(
    store: ObjectStore, url: str, request: pytest.FixtureRequest, sha256: str, size: int, body: bytes
) -> None:
    with pytest.raises(DigestMismatch):
        await store.put_stream_if_absent("blob", chunks_of(body), sha256=sha256, size=size)

    assert [row async for row in store.list("")] == []
    assert unfinished(url, request) == []


async def test_a_stream_is_not_read_when_the_object_exists(store: ObjectStore) -> None:
    await store.put_if_absent("blob", b"first")
    chunks = chunks_of(LARGE)

    with pytest.raises(PreconditionFailed):
        await store.put_stream_if_absent("blob", chunks, sha256=SHA256, size=len(LARGE))

    assert await anext(chunks) == LARGE[:MIB]


async def test_a_stream_that_loses_to_a_later_writer_leaves_the_winner(
    store: ObjectStore, url: str, request: pytest.FixtureRequest
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(LARGE):
            yield chunk
        await store.put_if_absent("blob", b"the winner")

    with pytest.raises(PreconditionFailed):
        await store.put_stream_if_absent("blob", chunks(), sha256=SHA256, size=len(LARGE))

    assert (await store.get("blob")).body == b"the winner"
    assert unfinished(url, request) == []


async def test_a_cancelled_stream_leaves_nothing(store: ObjectStore, url: str, request: pytest.FixtureRequest) -> None:
    is_under_way = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield LARGE[: 9 * MIB]  # the first part goes out before the second chunk is asked for
        is_under_way.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.put_stream_if_absent("blob", chunks(), sha256=SHA256, size=len(LARGE)))
    await is_under_way.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert [row async for row in store.list("")] == []
    assert unfinished(url, request) == []


async def test_a_stream_never_mixes_two_versions(store: ObjectStore) -> None:
    etag = await store.put_if_absent("blob", b"a" * 4 * MIB)
    chunks = aiter(store.stream("blob", chunk_bytes=1 << 16))
    received = [await anext(chunks)]

    await store.put_if_match("blob", b"b" * 4 * MIB, etag)

    with contextlib.suppress(StoreUnavailable):  # refusing to go on is allowed, going on with other bytes is not
        received += [chunk async for chunk in chunks]
    assert set(b"".join(received)) == set(b"a")


def unfinished(url: str, request: pytest.FixtureRequest) -> list[str]:
    """What a given-up upload left in the store, where no listing of ours shows it."""
    if url.startswith("file:"):
        return [path.name for path in Path(urlsplit(url).path, ".tmp").iterdir() if path.is_file()]
    server: servers.S3Server = request.getfixturevalue(request.node.callspec.params["url"])
    with server.client() as client:
        uploads = client.list_multipart_uploads(Bucket=urlsplit(url).netloc).get("Uploads", [])
        return [upload["Key"] for upload in uploads]

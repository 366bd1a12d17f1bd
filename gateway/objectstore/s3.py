"""The object store in an S3 bucket, over aiobotocore; no other module imports it. Not a wrapper: only what the protocol asks.

Endpoint, region and credentials come from where every AWS tool looks for them: environment, profile, container role. The
role needs `s3:ListBucket` too, for without it S3 answers a missing key with 403.

A lost answer is not a lost write: aiohttp and botocore send again, and the second send meets the first one's object. So each
write carries an id in the object's metadata, and a write that seems to have lost looks whether the winner is itself.

Known limit of one server: SeaweedFS lists `a/b` before `a-b`, and leaves `a/b` out of a listing that starts after `a-b`.
"""

import asyncio
import base64
import builtins
import contextlib
import hashlib
import logging
import os
import random
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import aiohttp
import botocore.exceptions as boto
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from gateway.errors import (
    ObjectNotFound,
    PreconditionFailed,
    SettingsError,
    StoreRefused,
    StoreUnavailable,
)
from gateway.objectstore import keys, s3_answers, verified
from gateway.objectstore.attempts import Attempts
from gateway.objectstore.protocol import ObjectInfo, StoredObject

PART_BYTES = 8 << 20  # held in memory per upload; S3 takes no part below 5 MiB but the last
PARTS_MAX = 10_000  # S3's limit
CONFLICTS_MAX = 5  # 409s in a row: five rounds of writers that meet again and again
CONFLICT_BACKOFF_S = 0.1
ABORT_WAIT_S = 5.0  # tidying up must not hold a cancelled caller; the bucket's lifecycle rule removes what is left
WRITE_ID = "steelyard-write"

CONFIG = AioConfig(
    connect_timeout=3,  # a store in reach accepts in milliseconds
    read_timeout=15,  # between two reads, not for a whole body
    retries={"mode": "standard", "max_attempts": 2},  # three sends, at most 3 s of backoff between them
    max_pool_connections=32,  # further calls wait for one of these
    response_checksum_validation="when_required",  # `get` asks for it; large blobs are checked by digest where they are used
)

_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
)

logger = logging.getLogger(__name__)


class S3Store:
    """An `ObjectStore` below `prefix` in `bucket`. The client is made by the first call and closed by `aclose`."""

    def __init__(self, bucket: str, prefix: str = "", attempts: Attempts | None = None) -> None:
        self._bucket = bucket
        self._attempts = attempts or Attempts()
        self._prefix = f"{prefix}/" if prefix else ""
        self._client: Any = None  # aiobotocore makes its clients' classes at run time
        self._connecting = asyncio.Lock()
        self._resources = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    async def get(self, key: str) -> StoredObject:
        at, s3 = self._at(key), await self._connected()
        with self._named(key):
            return await _whole(await s3.get_object(**at, ChecksumMode="ENABLED"))

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        at, s3 = self._at(key), await self._connected()
        with self._named(key):
            try:
                return await _whole(await s3.get_object(**at, IfNoneMatch=etag, ChecksumMode="ENABLED"))
            except boto.ClientError as error:
                if _status(error) == 304:
                    return None
                raise

    async def get_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
        at, s3 = self._at(key), await self._connected()
        if not 0 <= start < stop:
            raise ValueError(f"no such range: [{start}, {stop})")
        condition = {} if etag is None else {"IfMatch": etag}
        with self._named(key):
            try:
                found = await _whole(await s3.get_object(**at, Range=f"bytes={start}-{stop - 1}", **condition))
            except boto.ClientError as error:
                if _status(error) == 416:  # starts at the end, or behind it
                    return b""
                raise
        return found.body

    async def head(self, key: str) -> ObjectInfo:
        at, s3 = self._at(key), await self._connected()
        with self._named(key):
            try:
                answer = await s3.head_object(**at)
            except boto.ClientError as error:
                if _status(error) == 404:  # has no body to say whether the key or the bucket is missing
                    await self._require_bucket(s3)
                raise
        return ObjectInfo(key=key, size=answer["ContentLength"], modified_ns=_ns(answer["LastModified"]))

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        at, s3 = self._at(key), await self._connected()
        with self._named(key):
            answer = await s3.get_object(**at)
        async with answer["Body"] as body:
            while chunk := await self._read(key, body, chunk_bytes):
                yield chunk

    async def put_if_absent(self, key: str, body: bytes) -> str:
        return await self._put(key, body, {"IfNoneMatch": "*"})

    async def put_if_match(self, key: str, body: bytes, etag: str) -> str:
        try:
            return await self._put(key, body, {"IfMatch": etag})
        except ObjectNotFound as error:
            raise PreconditionFailed(f"{self._name(key)} is gone; read it again") from error

    async def put_stream_if_absent(self, key: str, chunks: AsyncIterable[bytes], *, sha256: str, size: int) -> None:
        part_bytes = max(PART_BYTES, -(-size // PARTS_MAX))
        blocks = verified.blocks(chunks, block_bytes=part_bytes, sha256=sha256, size=size)
        async with contextlib.aclosing(blocks):
            if size <= part_bytes:
                await self.put_if_absent(key, b"".join([block async for block in blocks]))
                return
            with contextlib.suppress(ObjectNotFound):
                await self.head(key)
                raise PreconditionFailed(f"{self._name(key)} exists already")  # said before gigabytes are sent in vain
            await self._put_parts(key, blocks)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        position = {"StartAfter": self._prefix + start_after} if start_after else {}
        async for page in self._pages(prefix, position):
            for row in page.get("Contents", ()):
                key = row["Key"].removeprefix(self._prefix)
                if keys.is_key(key):
                    yield ObjectInfo(key=key, size=row["Size"], modified_ns=_ns(row["LastModified"]))

    async def folders(self, prefix: str) -> builtins.list[str]:
        rows = [row async for page in self._pages(prefix, {"Delimiter": "/"}) for row in page.get("CommonPrefixes", ())]
        return [row["Prefix"].removeprefix(self._prefix + prefix).rstrip("/") for row in rows]

    async def delete(self, key: str) -> None:
        at, s3 = self._at(key), await self._connected()
        with self._named(key):
            await s3.delete_object(**at)

    async def aclose(self) -> None:
        await self._resources.aclose()

    async def _connected(self) -> Any:
        """The one client; concurrent first calls wait for the same."""
        async with self._connecting:
            if self._client is None:
                # AWS names the region AWS_REGION in its containers, where botocore reads AWS_DEFAULT_REGION alone.
                region = os.environ.get("AWS_REGION") or None
                try:
                    client = get_session().create_client("s3", region_name=region, config=CONFIG)
                    self._client = await self._resources.enter_async_context(client)
                    self._attempts.watch(self._client.meta.events)
                except (boto.BotoCoreError, ValueError) as error:
                    raise SettingsError(f"store {self.url}: cannot use the AWS settings: {error}") from error
            return self._client

    async def _pages(self, prefix: str, options: dict[str, str]) -> AsyncIterator[Any]:  # Any: ListObjectsV2's answers
        s3 = await self._connected()
        listing = s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, **options
        )
        pages = aiter(listing)
        while True:
            with self._named(prefix):
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    async def _put(self, key: str, body: bytes, condition: dict[str, str]) -> str:
        """One object in one request. A 409 is another write in flight: nobody has won yet, so try again."""
        at, s3 = self._at(key), await self._connected()
        write_id = secrets.token_hex(16)
        put = {**at, **condition, **await _checked(body), "Metadata": {WRITE_ID: write_id}}
        was_resent = False
        with self._named(key):
            for conflicts in range(CONFLICTS_MAX):
                await asyncio.sleep(_full_jitter_s(conflicts))
                try:
                    return str((await s3.put_object(**put))["ETag"])
                except boto.ClientError as error:
                    was_resent |= error.response["ResponseMetadata"]["RetryAttempts"] > 0
                    if _status(error) == 409:
                        continue
                    if _status(error) == 412 and (etag := await _own(s3, at, write_id)):
                        return etag
                    if was_resent and "IfMatch" in condition and _status(error) in {404, 412}:
                        # The first send may have been stored and then replaced: "it lost" would be a guess. When a
                        # connection breaks, aiohttp sends again unseen by botocore: there the guess remains.
                        raise StoreUnavailable(f"{self._name(key)}: unclear whether it was written; read it") from error
                    raise
        raise StoreUnavailable(f"{self._name(key)}: {CONFLICTS_MAX} times another write was in progress; try again")

    async def _put_parts(self, key: str, blocks: AsyncIterator[bytes]) -> None:
        """One object in several requests, visible with the last of them; a refusal or cancellation takes the parts back."""
        at, s3 = self._at(key), await self._connected()
        write_id = secrets.token_hex(16)
        async with contextlib.AsyncExitStack() as undo:
            with self._named(key):
                started = await s3.create_multipart_upload(
                    **at, ChecksumAlgorithm="SHA256", Metadata={WRITE_ID: write_id}
                )
            upload = {**at, "UploadId": started["UploadId"]}
            undo.push_async_callback(self._abort, s3, upload)
            parts: Any = []  # what botocore calls CompletedPart
            async for block in blocks:
                part = {"PartNumber": len(parts) + 1, **await _checked(block)}
                with self._named(key):
                    stored = await s3.upload_part(**upload, **part)
                del part["Body"]
                parts.append({**part, "ETag": stored["ETag"]})
            with self._named(key):
                try:
                    await s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
                except boto.ClientError as error:
                    # 404: the upload is over, perhaps because a first answer was lost. A 409 needs the parts again: the
                    # caller's stream is spent, so it is the caller who tries again.
                    if _status(error) not in {404, 412} or not await _own(s3, at, write_id):
                        raise
            undo.pop_all()

    async def _abort(self, s3: Any, upload: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(ABORT_WAIT_S):
                await s3.abort_multipart_upload(**upload)
        except (boto.BotoCoreError, boto.ClientError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning(
                "%s: the parts of a failed upload stay until the bucket's lifecycle rule: %s", self.url, error
            )

    async def _read(self, key: str, body: Any, chunk_bytes: int) -> bytes:  # Any: botocore's streaming body, untyped
        with self._named(key):
            chunk: bytes = await body.read(chunk_bytes)
            return chunk

    async def _require_bucket(self, s3: Any) -> None:
        try:
            await s3.head_bucket(Bucket=self._bucket)
        except boto.ClientError as error:
            if _status(error) == 404:
                raise s3_answers.meaning(404, "NoSuchBucket", bucket=self._bucket, what=self.url) from error
            raise

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + keys.checked(key)}

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    @contextlib.contextmanager
    def _named(self, key: str) -> Iterator[None]:
        """The one place where botocore's and aiohttp's errors become ours."""
        what = self._name(key)
        try:
            yield
        except asyncio.CancelledError:
            self._attempts.abandon()
            raise
        except boto.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            raise s3_answers.meaning(_status(error), code, bucket=self._bucket, what=what) from error
        except _NO_CREDENTIALS as error:
            raise StoreRefused(f"{what}: no AWS credentials: {s3_answers.quotable(error)}") from error
        except (boto.BotoCoreError, aiohttp.ClientError, TimeoutError) as error:
            raise StoreUnavailable(f"{what}: no usable answer from the store: {s3_answers.quotable(error)}") from error


async def _whole(answer: Any) -> StoredObject:
    async with answer["Body"] as body:
        return StoredObject(body=await body.read(), etag=answer["ETag"])


async def _own(s3: Any, at: dict[str, str], write_id: str) -> str | None:
    """The etag of the stored object when this very write stored it, else None."""
    try:
        head = await s3.head_object(**at)
    except boto.ClientError as error:
        if _status(error) == 404:
            return None
        raise
    return head["ETag"] if head["Metadata"].get(WRITE_ID) == write_id else None


async def _checked(body: bytes) -> dict[str, Any]:
    """A body and the checksum that the server compares. In a thread: 8 MiB take 7 to 20 ms, and botocore would block the loop."""
    digest = await asyncio.to_thread(hashlib.sha256, body)
    return {"Body": body, "ChecksumSHA256": base64.b64encode(digest.digest()).decode()}


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9  # S3 tells whole seconds


def _status(error: boto.ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _full_jitter_s(conflicts: int) -> float:
    """How long to wait after this many conflicts; not at all before the first."""
    longest_s = CONFLICT_BACKOFF_S * (2**conflicts - 1)
    return random.uniform(0, longest_s)  # noqa: S311 - spreads writers, hides nothing

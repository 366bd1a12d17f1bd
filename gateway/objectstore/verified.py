"""A stream regrouped into blocks that are known to be what was promised. Not a store: both stores upload through this.

The check is over before the iteration ends, so a caller that commits after its loop never commits anything else.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable

from gateway.errors import DigestMismatch


async def blocks(
    chunks: AsyncIterable[bytes], *, block_bytes: int, sha256: str, size: int
) -> AsyncGenerator[bytes, None]:
    """The same bytes in blocks of exactly `block_bytes`, the last one shorter; none when `size` is 0.

    Holds one block and one chunk in memory. Raises `DigestMismatch` as soon as more than `size` bytes have come, and instead
    of ending when the bytes are fewer or do not have this digest (lower-case hex).
    """
    digest = hashlib.sha256()
    pending = bytearray()
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        if received > size:
            raise DigestMismatch(f"more than the promised {size} bytes arrived")
        pending += chunk
        while len(pending) >= block_bytes:
            block = bytes(pending[:block_bytes])
            del pending[:block_bytes]
            await asyncio.to_thread(digest.update, block)
            yield block
    await asyncio.to_thread(digest.update, pending)
    if received < size:
        raise DigestMismatch(f"{received} of the promised {size} bytes arrived")
    if digest.hexdigest() != sha256:
        raise DigestMismatch(f"the bytes have sha256 {digest.hexdigest()}, promised was {sha256}")
    if pending:
        yield bytes(pending)

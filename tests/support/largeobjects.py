"""An object that takes three parts of a multipart upload, and bodies as streams."""

import hashlib
from collections.abc import AsyncIterator

MIB = 1 << 20
LARGE = bytes(range(256)) * (17 * MIB // 256)  # three parts of a multipart upload
SHA256 = hashlib.sha256(LARGE).hexdigest()


async def chunks_of(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), MIB):
        yield body[start : start + MIB]

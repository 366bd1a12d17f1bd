"""Content codings of bodies (OIP-21): gzip, and deflate, which is zlib's format. Pure functions; `gateway.http` calls them.

What comes out is bounded, whatever goes in: inflating stops at the limit, so a small body cannot fill the memory.
"""

import zlib

from gateway.errors import InvalidInput, PayloadTooLarge

_STEP_BYTES = 1 << 16  # taken and inflated at a time: what is held beyond the limit
_MEMBERS_MAX = 1024  # of one gzip body: each costs a fresh window, however few bytes it has
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def inflate(body: bytes | memoryview, encoding: bytes, limit_bytes: int) -> bytes:
    """The body as it was before its Content-Encoding. Raises `PayloadTooLarge` past the limit, `InvalidInput` for no stream.

    Codings may be listed; they are undone in reverse order. More than two are refused.
    """
    codings = [coding.strip().lower() for coding in encoding.decode("latin-1").split(",")]
    if len(codings) > 2:
        raise InvalidInput("Content-Encoding lists more than two codings")
    for coding in reversed(codings):
        if coding in _WINDOWS:
            body = _inflate(body, coding, limit_bytes)
        elif coding != "identity":
            raise InvalidInput(f"Content-Encoding '{coding[:32]}' is not supported; send gzip, deflate or identity")
    return bytes(body)


def deflate(body: bytes, accept: bytes, level: int) -> tuple[bytes, bytes | None]:
    """The body in the coding that an Accept-Encoding prefers among ours, and its name; as it is, and None, when there is none.

    gzip wins a tie. A body that would grow stays as it is.
    """
    coding = preferred(accept)
    if coding is None:
        return body, None
    packer = zlib.compressobj(level, wbits=_WINDOWS[coding])
    packed = packer.compress(body) + packer.flush()
    return (packed, coding.encode()) if len(packed) < len(body) else (body, None)


def preferred(accept: bytes) -> str | None:
    """The coding of ours with the highest weight above 0 in an Accept-Encoding, or None. What cannot be read weighs nothing."""
    weights: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = _weight(parameters)
    other = weights.get("*", 0.0)
    found = {coding: weights.get(coding, other) for coding in ("gzip", "deflate")}
    best = max(found, key=lambda coding: found[coding])
    return best if found[best] > 0 and found[best] >= weights.get("identity", 0.0) else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 0.0 if name else 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


def _inflate(body: bytes | memoryview, coding: str, limit_bytes: int) -> bytes:
    """One stream; for gzip also several, one after the other, which is how parallel compressors write."""
    view, at, found = memoryview(body), 0, bytearray()
    for _ in range(_MEMBERS_MAX):
        try:
            at = _member(view, at, coding, limit_bytes, found)
        except zlib.error as error:
            raise InvalidInput(f"the body is not {coding}: {error}") from None
        if at == len(view):
            return bytes(found)
        if coding == "deflate" or bytes(view[at : at + 2]) != b"\x1f\x8b":
            raise InvalidInput(f"{len(view) - at} bytes follow the {coding} stream")
    raise InvalidInput(f"the gzip body has more than {_MEMBERS_MAX} members")


def _member(view: memoryview, at: int, coding: str, limit_bytes: int, found: bytearray) -> int:
    """Inflates the stream at `at` onto `found`; returns where it ends."""
    stream = zlib.decompressobj(_WINDOWS[coding])
    rest: bytes | memoryview = b""
    while not stream.eof:
        if not rest:
            rest = view[at : at + _STEP_BYTES]
            at += len(rest)
        piece = stream.decompress(rest, min(_STEP_BYTES, limit_bytes - len(found) + 1))
        found += piece
        if len(found) > limit_bytes:
            raise PayloadTooLarge(
                f"the body inflates to more than {limit_bytes} bytes (compression.inflated_bytes_max)"
            )
        rest = stream.unconsumed_tail
        if not (piece or rest or at < len(view) or stream.eof):
            raise InvalidInput(f"the {coding} body ends before its stream does")
    return at - len(stream.unused_data)

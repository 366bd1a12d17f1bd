"""Content codings: what is undone, what is refused, and that no body makes memory grow past its limit (OIP-21)."""

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidInput, PayloadTooLarge
from gateway.http import compression
from gateway.http.messages import Request
from gateway.http.predictions import Predictions

PACKERS = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress}


@given(body=st.binary(max_size=2000), coding=st.sampled_from([*PACKERS]), repeat=st.integers(1, 300))
def test_what_was_compressed_comes_back(body: bytes, coding: bytes, repeat: int) -> None:
    body *= repeat
    assert compression.inflate(PACKERS[coding](body), coding.upper(), len(body)) == body
    if body:  # one byte less is too little
        with pytest.raises(PayloadTooLarge, match=f"more than {len(body) - 1} bytes"):
            compression.inflate(PACKERS[coding](body), coding, len(body) - 1)


@given(body=st.binary(max_size=3000), accept=st.sampled_from([b"gzip", b"deflate", b"gzip;q=0.5, deflate", b"*"]))
def test_an_answer_is_never_longer_and_can_be_read(body: bytes, accept: bytes) -> None:
    packed, coding = compression.deflate(body, accept, 1)
    assert len(packed) <= len(body)
    assert (compression.inflate(packed, coding, len(body)) if coding else packed) == body


def test_several_codings_and_several_gzip_members_are_undone() -> None:
    assert compression.inflate(gzip.compress(zlib.compress(b"abc")), b"deflate, gzip", 100) == b"abc"
    assert compression.inflate(b"abc", b"identity", 3) == b"abc"
    assert compression.inflate(gzip.compress(b"ab") + gzip.compress(b"c"), b"gzip", 3) == b"abc"


@pytest.mark.parametrize(
    ("body", "coding", "message"),
    [
        (gzip.compress(b"abc", mtime=0)[:-4], b"gzip", "the gzip body ends before its stream does"),
        (gzip.compress(b"abc", mtime=0)[:3], b"gzip", "ends before"),
        (b"", b"gzip", "ends before"),
        (gzip.compress(b"abc", mtime=0) + b"x", b"gzip", "1 bytes follow the gzip stream"),
        (gzip.compress(b"abc", mtime=0) + b"\x1f\x8b!", b"gzip", "ends before|not gzip"),
        (gzip.compress(b"", mtime=0) * 1025, b"gzip", "more than 1024 members"),
        (zlib.compress(b"abc") + b"xy", b"deflate", "2 bytes follow the deflate stream"),
        (b"plain", b"gzip", "not gzip"),
        (zlib.compress(b"abc"), b"gzip", "not gzip"),
        (gzip.compress(b"abc", mtime=0), b"deflate", "not deflate"),
        (bytes(gzip.compress(b"abc", mtime=0)[:-8]) + bytes(8), b"gzip", "not gzip"),  # a checksum that lies
        (b"x", b"br", "Content-Encoding 'br' is not supported; send gzip, deflate or identity"),
        (b"x", b"\xff\x00", "not supported"),
        (b"x", b"gzip, gzip, gzip", "more than two"),
    ],
)
def test_what_is_no_stream_is_refused(body: bytes, coding: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compression.inflate(body, coding, 1000)


def test_a_bomb_costs_its_limit_and_no_more() -> None:
    bomb = gzip.compress(gzip.compress(bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            compression.inflate(bomb, b"gzip, gzip", 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"gzip, deflate", "gzip"),
        (b"deflate", "deflate"),
        (b"gzip;q=0.2, deflate;q=0.8", "deflate"),
        (b"GZIP ; Q=1", "gzip"),
        (b"gzip;q=0", None),
        (b"*", "gzip"),
        (b"gzip;q=0, *", "deflate"),
        (b"br, zstd", None),
        (b"identity, gzip;q=0.5", None),
        (b"gzip;q=nonsense", None),
        (b"gzip;q=2", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_the_client_chooses_the_coding(accept: bytes, coding: str | None) -> None:
    assert compression.preferred(accept) == coding


def test_a_body_that_would_grow_stays_as_it_is() -> None:
    assert compression.deflate(b"x", b"gzip", 1) == (b"x", None)


@pytest.mark.parametrize(
    ("encoding", "size", "slow"), [(b"gzip", 100, False), (b"gzip, gzip", 100, True), (b"gzip", 5000, True)]
)
def test_what_may_grow_beyond_measure_is_not_inflated_on_the_loop(encoding: bytes, size: int, slow: bool) -> None:
    anything: Any = None
    predictions = Predictions(anything, anything, iter(()), anything, anything)
    request = Request(b"POST", b"/", [], {b"content-encoding": encoding}, b"x" * size, 0, False)
    assert predictions.is_slow(request) is slow

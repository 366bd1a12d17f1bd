"""The money of one segment: its lines before the first request, checked against the contract. Not the requests, and not an audit.

The contract puts requests last, so a segment of thousands of them is neither unpacked nor parsed beyond its first block.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.contract import codec
from gateway.contract.ledger import Charge, Posting, Request, Segment
from gateway.reports import copied

_decoder = msgspec.json.Decoder(Charge | Posting | Request)


class Head(msgspec.Struct, frozen=True):
    """`sha256` is that of the whole stored file: what the next segment's `previous_sha256` must be."""

    sha256: str
    segment: Segment
    money: tuple[Charge | Posting, ...]


def read(path: Path) -> Head:
    """Raises `ManifestInvalid` naming a file that is damaged or newer than this release."""
    data = path.read_bytes()
    try:
        with gzip.open(io.BytesIO(data)) as lines:
            segment = copied.decoded(path, lines.readline(), Segment, "ledger segment")
            money = tuple(_money(lines))
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise copied.damaged("ledger segment", path, error) from error
    return Head(codec.sha256(data), segment, money)


def _money(lines: gzip.GzipFile) -> Iterator[Charge | Posting]:
    for text in lines:
        line = _decoder.decode(text)
        if isinstance(line, Request):
            return
        yield line

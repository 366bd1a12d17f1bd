"""A statement as stored bytes and back: gzip of JSON lines, the same bytes for the same statement.

Pure: the ledger writer calls `encode` in a worker thread, an auditor calls `decode` and `discrepancies`. The lines are
`gateway.contract.ledger`'s, in its order.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType

import msgspec

from gateway.accounting.statement import Statement
from gateway.contract import codec
from gateway.contract.ledger import Charge, Line, Posting, Request, Segment
from gateway.errors import ManifestInvalid

try:
    from isal import isal_zlib
except ImportError:  # only writers need it, and the extra `gateway` brings it
    packing: ModuleType = zlib
else:
    packing = isal_zlib

GZIP = 31
"""zlib's window bits for a gzip header, which zlib writes without a time or a name: nothing but the lines decides the bytes."""
LEVEL = 1
"""Of zlib, level 6 takes 3.3 times the CPU of level 1 and saves a quarter of the bytes. ISA-L at level 1 takes a quarter of zlib's
CPU and saves a tenth of the bytes (tests/bench/accounting.py).
"""
LINES_PER_CHUNK = 256
"""Encoding holds the interpreter's lock and compressing does not: so cut, a segment of 20,000 requests keeps the event loop waiting
for about 0.5 ms (on a loaded machine up to 7 ms), in one piece for 5 ms and more."""
DECODED_BYTES_MAX = 1 << 28
"""Eight times a segment of 100,000 requests: more is not ours, and must not fill an auditor's memory."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class ParsedSegment(msgspec.Struct, frozen=True):
    """One segment's lines by kind."""

    header: Segment
    charges: tuple[Charge, ...]
    postings: tuple[Posting, ...]
    requests: tuple[Request, ...]


def encode(
    statement: Statement,
    *,
    container: str,
    boot_ns: int,
    seq: int,
    previous_sha256: str,
    price_book_sha256: str,
) -> bytes:
    """The segment's stored bytes."""
    header = Segment(
        container=container,
        boot_ns=boot_ns,
        seq=seq,
        previous_sha256=previous_sha256,
        from_ns=statement.from_ns,
        to_ns=statement.to_ns,
        price_book_sha256=price_book_sha256,
        cost_picousd=statement.cost_picousd,
        requests=statement.request_count,
        collapsed=statement.request_count - len(statement.requests),
    )
    packer = packing.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    packed = [packer.compress(_encoder.encode_lines([header, *statement.charges, *statement.postings]))]
    packed += [packer.compress(_encoder.encode_lines(chunk)) for chunk in _chunks(statement.requests)]
    return b"".join([*packed, packer.flush()])


def decode(data: bytes, *, what: str = "segment") -> ParsedSegment:
    """Read stored bytes; `what` names them in the message.

    Raises `ManifestInvalid` for anything that is not one whole segment, or was written by a newer version.
    """
    lines = _unpack(data, what)
    header = codec.decode(lines[: lines.find(b"\n")], Segment, what=what)
    try:
        rest: list[Line] = _decoder.decode_lines(lines)[1:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(f"{what} is not valid: {error}") from error
    if any(isinstance(line, Segment) for line in rest):
        raise ManifestInvalid(f"{what} has two headers")
    return ParsedSegment(
        header,
        tuple(line for line in rest if isinstance(line, Charge)),
        tuple(line for line in rest if isinstance(line, Posting)),
        tuple(line for line in rest if isinstance(line, Request)),
    )


def discrepancies(parsed: ParsedSegment) -> tuple[str, ...]:
    """What does not add up in this segment, in words; empty when it balances."""
    header = parsed.header
    charged, posted = Counter[str](), Counter[str]()
    for charge in parsed.charges:
        charged[charge.sku] += charge.cost_picousd
    for posting in parsed.postings:
        posted[posting.sku] += posting.cost_picousd
    infer = [posting for posting in parsed.postings if posting.account == "infer"]
    infer_picousd = sum(posting.cost_picousd for posting in infer)
    receipts_picousd = sum(request.cost_picousd for request in parsed.requests)
    checks = [
        (header.cost_picousd == charged.total(), "the header's cost and the charges differ"),
        *((posted[sku] == charged[sku], f"postings and charge of '{sku}' differ") for sku in sorted(charged | posted)),
        (
            header.requests == sum(posting.requests for posting in infer),
            "the header's requests and those of the infer postings differ",
        ),
        (
            header.requests == len(parsed.requests) + header.collapsed,
            "the header's requests and the lines with those collapsed differ",
        ),
        (
            receipts_picousd <= infer_picousd and (header.collapsed > 0 or receipts_picousd == infer_picousd),
            "the receipts and the infer postings differ",
        ),
    ]
    return tuple(problem for holds, problem in checks if not holds)


def _chunks(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    for start in range(0, len(requests), LINES_PER_CHUNK):
        yield requests[start : start + LINES_PER_CHUNK]


def _unpack(data: bytes, what: str) -> bytes:
    unpacker = zlib.decompressobj(GZIP)
    try:
        lines = unpacker.decompress(data, DECODED_BYTES_MAX)
    except zlib.error as error:
        raise ManifestInvalid(f"{what} is not gzip: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise ManifestInvalid(f"{what} is not one whole gzip stream of at most {DECODED_BYTES_MAX} bytes")
    return lines

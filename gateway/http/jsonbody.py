"""JSON bodies in and out: one place that bounds their structure and turns a decoder's refusal into a sentence naming the field."""

import re
from typing import Any, TypeVar

import msgspec
import numpy as np
import orjson

from gateway.errors import InvalidInput

T = TypeVar("T")
Text = bytes | memoryview
DEPTH_MAX = 100
"""Nesting that a body may have (OIP-22). No protocol needs more than a tensor's dimensions and four; parsers recurse."""
CONTAINERS_MAX = 1 << 18
"""Arrays and objects that a body may have: each takes a microsecond or two of the event loop, whatever it holds. So many rows of a
few columns are longer than `server.body_bytes_max`."""

_SMALL_BYTES = 4096  # `bytes.count` beats numpy below this
_CHUNK_BYTES = 1 << 16
_POSITION = re.compile(r"\(byte (\d+)\)")
_QUOTE = ord('"')
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEP = np.zeros(256, np.int8)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1


def decode(decoder: "msgspec.json.Decoder[T]", body: Text) -> T:
    """The decoded value. Raises `InvalidInput`: where the JSON breaks, which field has the wrong type, or that it is too deep."""
    check_structure(body)
    return decode_part(decoder, body)


def decode_part(decoder: "msgspec.json.Decoder[T]", body: Text | msgspec.Raw) -> T:
    """The same for a part of a body whose structure has been checked."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{error}{_near(bytes(body), str(error))}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the body is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InvalidInput("the JSON is nested too deeply") from None


def check_structure(body: Text) -> None:
    """Raises `InvalidInput` when there are more than `CONTAINERS_MAX` arrays and objects, or they are nested more than `DEPTH_MAX`
    deep. Most bodies have too few brackets for either.
    """
    brackets, braces = opened(body)
    if brackets + braces > DEPTH_MAX:
        _look_at_structure(bytes(body))


def opened(body: Text) -> tuple[int, int]:
    """How many `[` and `{` there are, those in strings included."""
    if len(body) < _SMALL_BYTES:
        text = bytes(body)
        return text.count(b"["), text.count(b"{")
    data = np.frombuffer(body, np.uint8)
    return int(np.count_nonzero(data == ord("["))), int(np.count_nonzero(data == ord("{")))


def _look_at_structure(body: bytes) -> None:
    """Linear whatever is sent, in a few nanoseconds a byte. What is no JSON may be judged wrongly: parsers refuse it anyway."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # now every quote begins or ends a string
    body = body.translate(None, _NO_STRUCTURE).replace(b'""', b"")
    depth = count = 0
    is_within = False  # a string
    for at in range(0, len(body), _CHUNK_BYTES):
        marks = np.frombuffer(body, np.uint8, min(_CHUNK_BYTES, len(body) - at), at)
        within = (np.cumsum(marks == _QUOTE, dtype=np.uint32) + is_within) & 1
        steps = _STEP[marks] * (within == 0)
        depths = np.cumsum(steps, dtype=np.int64) + depth
        if depths.max() > DEPTH_MAX:
            raise InvalidInput(f"the JSON is nested too deeply: more than {DEPTH_MAX} levels")
        count += int(np.count_nonzero(steps > 0))
        if count > CONTAINERS_MAX:
            raise InvalidInput(
                f"the JSON has more than {CONTAINERS_MAX} arrays and objects; send fewer rows, or tensors flat or as bytes"
            )
        depth, is_within = int(depths[-1]), bool(within[-1])


def _near(body: bytes, message: str) -> str:
    """Names the field before the byte where the JSON breaks; NaN and Infinity are what breaks it most often."""
    position = _POSITION.search(message)
    if position is None:
        return ""
    at = int(position[1])
    keys = re.findall(rb'"((?:[^"\\]|\\.){1,64})"\s*:', body[max(0, at - 4096) : at])
    near = f", after the key '{keys[-1].decode(errors='replace')}'" if keys else ""
    if body[at : at + 9].lstrip(b"-").startswith((b"N", b"I", b"n", b"i")):
        near += "; JSON has no NaN or Infinity"
    return near


def encode(value: Any) -> bytes:  # Any: whatever msgspec can encode
    """Compact JSON; NaN and Infinity become null, as JSON has no word for them."""
    return _encoder.encode(value)


def encode_numbers(value: Any) -> bytes:  # Any: arrays and numpy scalars, alone or in lists and dicts
    """The same for numpy arrays in C order and numpy scalars. A float32 has the few digits that identify it among float32s."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


_encoder = msgspec.json.Encoder()

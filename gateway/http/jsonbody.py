"""JSON bodies in and out: one place that bounds their depth and turns a decoder's refusal into a sentence naming the field."""

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

_SMALL_BYTES = 4096  # `bytes.count` beats numpy below this
_CHUNK_BYTES = 1 << 16
_POSITION = re.compile(r"\(byte (\d+)\)")
# Possessive, and an unterminated string reaches to the end: nothing is looked at twice, whatever a stranger sends.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STEP = np.zeros(256, np.int8)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1


def decode(decoder: "msgspec.json.Decoder[T]", body: Text) -> T:
    """The decoded value. Raises `InvalidInput`: where the JSON breaks, which field has the wrong type, or that it is too deep."""
    check_depth(body)
    return decode_part(decoder, body)


def decode_part(decoder: "msgspec.json.Decoder[T]", body: Text | msgspec.Raw) -> T:
    """The same for a part of a body whose depth has been checked."""
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


def check_depth(body: Text) -> None:
    """Raises `InvalidInput` when arrays and objects are nested more than `DEPTH_MAX` deep. Most bodies have no more brackets."""
    brackets, braces = opened(body)
    if brackets + braces > DEPTH_MAX and _is_too_deep(bytes(body)):
        raise InvalidInput(f"the JSON is nested too deeply: more than {DEPTH_MAX} levels")


def opened(body: Text) -> tuple[int, int]:
    """How many `[` and `{` there are, those in strings included."""
    if len(body) < _SMALL_BYTES:
        text = bytes(body)
        return text.count(b"["), text.count(b"{")
    data = np.frombuffer(body, np.uint8)
    return int(np.count_nonzero(data == ord("["))), int(np.count_nonzero(data == ord("{")))


def _is_too_deep(body: bytes) -> bool:
    brackets = np.frombuffer(_STRING.sub(b"", body), np.uint8)
    depth = 0
    for at in range(0, len(brackets), _CHUNK_BYTES):
        depths = depth + np.cumsum(_STEP[brackets[at : at + _CHUNK_BYTES]], dtype=np.int64)
        if depths.max() > DEPTH_MAX:
            return True
        depth = int(depths[-1])
    return False


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

"""JSON bodies in: one place that turns a decoder's refusal into a sentence naming the field."""

import re
from typing import Any, TypeVar

import msgspec

from gateway.errors import InvalidInput

T = TypeVar("T")
_POSITION = re.compile(r"\(byte (\d+)\)")


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes | memoryview | msgspec.Raw) -> T:
    """The decoded value. Raises `InvalidInput`: where the JSON breaks, or which field has the wrong type."""
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


_encoder = msgspec.json.Encoder()

"""Bytes to contract structs and back: canonical JSON, one rule for versions and unknown fields.

Reading tolerates fields that a newer minor writer added and refuses a higher `schema_version` by name. Writing validates
types (a msgspec struct does not check its constructor's arguments), so nothing malformed is ever stored.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar  # Any: JSON-like trees before they become structs

import msgspec

from gateway.errors import ManifestInvalid, WrittenByNewer

T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder(order="deterministic")


class _Versioned(msgspec.Struct):
    schema_version: int


_versions = msgspec.json.Decoder(_Versioned)


def encode(value: msgspec.Struct) -> bytes:
    """Canonical JSON: declared field order, sorted mappings, no spaces. Equal values give equal bytes (1 in a float field is 1.0).

    Raises `ManifestInvalid` naming the field when a value does not have its declared type.
    """
    return _encoder.encode(decode(_encoder.encode(value), type(value)))


def decode(data: bytes, kind: type[T], *, what: str = "") -> T:
    """Read a stored object of this kind; `what` names it in the message.

    Raises `ManifestInvalid` for anything that is not JSON of this shape, `WrittenByNewer` for a newer `schema_version`.
    """
    name = what or kind.__name__.lower()
    try:
        written = _versions.decode(data).schema_version
        known = schema_version(kind)
        if written > known:
            raise WrittenByNewer(
                f"{name} has schema_version {written}; this Steelyard reads up to {known}: upgrade it first"
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(f"{name} is not valid: {error}") from error


def schema_version(kind: type[msgspec.Struct]) -> int:
    """The version this code writes: the default of the struct's `schema_version` field."""
    field = next(field for field in msgspec.structs.fields(kind) if field.name == "schema_version")
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    assert isinstance(default, int)
    return default


def convert_strict(raw: Mapping[str, Any], kind: type[T], *, strict: bool = True) -> T:
    """A struct from a hand-written mapping (TOML); an unknown key is an error that names its path.

    With `strict=False` a text that reads as the declared type is accepted for it, as environment variables need.

    Raises `msgspec.ValidationError`; the caller knows which file to name.
    """
    value = msgspec.convert(raw, kind, strict=strict)
    unknown = _unknown_paths(raw, msgspec.to_builtins(value), "$")
    if unknown:
        raise msgspec.ValidationError(f"unknown key `{unknown[0]}`")
    return value


def _unknown_paths(raw: Any, known: Any, path: str) -> list[str]:  # Any: both sides are plain JSON-like trees
    if isinstance(raw, Mapping) and isinstance(known, Mapping):
        extra = [f"{path}.{key}" for key in raw if key not in known]
        return extra + [p for key in raw if key in known for p in _unknown_paths(raw[key], known[key], f"{path}.{key}")]
    if isinstance(raw, list | tuple) and isinstance(known, list | tuple):
        return [
            p for i, (a, b) in enumerate(zip(raw, known, strict=False)) for p in _unknown_paths(a, b, f"{path}[{i}]")
        ]
    return []


def sha256(data: bytes) -> str:
    """Lower-case hex digest: the identity of a blob, a manifest, a segment."""
    return hashlib.sha256(data).hexdigest()

"""Plain values as YAML text: the same value gives the same bytes. Writes only, and only what a Kubernetes manifest needs.

Every string that could be read as anything else is quoted as JSON quotes it, which is YAML too.
"""

import json
import re
from collections.abc import Mapping, Sequence

Value = str | int | bool | Mapping[str, "Value"] | Sequence["Value"]

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*(?:[:][A-Za-z0-9/._-]+)*")
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan"}
"""What some YAML reader takes for something that is no text."""


def document(value: Value) -> str:
    """One document, with a line break at its end."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Value) -> list[str]:
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in _entry(f"{_scalar(key)}:", inner)] or ["{}"]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [line for inner in value for line in _item(inner)] or ["[]"]
    return [_scalar(value)]


def _entry(head: str, value: Value) -> list[str]:
    lines = _lines(value)
    if not isinstance(value, Mapping | Sequence) or isinstance(value, str) or not value:
        return [f"{head} {lines[0]}"]
    return [head, *(f"  {line}" for line in lines)]


def _item(value: Value) -> list[str]:
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: str | int) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # Not as JSON escapes: YAML reads its surrogate pairs as two characters.
    return _BEYOND_ASCII.sub(lambda found: f"\\U{ord(found[0]):08x}", json.dumps(value, ensure_ascii=False))

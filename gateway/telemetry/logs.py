"""The log: JSON lines for machines, one readable line for people, to stderr. Never a payload and never a key.

A record's message is what our own code wrote; besides it only the fields named here are shown, and of an exception that is not
ours its class and where it was raised, for its message may quote a request. Whoever starts a gateway calls `configure`.
"""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, TextIO

import msgspec

from gateway.config import Seconds
from gateway.errors import GatewayError, RequestError

FIELDS = (
    "request_id", "trace_id", "model", "version", "tenant", "door", "status", "reason", "error", "rows", "duration_ns",
    "cost_picousd", "phases", "saturation", "in_flight", "shed", "release_problems", "ledger_failures",
)  # fmt: skip
"""What `extra=` may carry into a line, in this order. Anything else that a caller adds is not shown."""

_TELLING = (GatewayError, OSError, ImportError)
"""Exceptions whose messages carry no payload: ours by rule, the system's by nature. Not `RequestError`: it speaks to a caller."""

_encoder = msgspec.json.Encoder(enc_hook=str)


class LogOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`format`: `auto` is text in a terminal and JSON otherwise. `requests`: which answers get a line of their own; `failed` are
    those with status 500 and above: what a caller did wrong is counted in `/metrics`, and logging it would let callers fill a disk.
    `figures_s`: how often a line tells saturation and a few counts, for platforms that scale by logs; 0 is never. A line has 200
    bytes: every 15 s that is 36 MB a month, $0.02 in CloudWatch ($0.50 per GB).
    """

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: Literal["none", "failed", "all"] = "failed"
    figures_s: Seconds = 0.0


def configure(options: LogOptions, stream: TextIO | None = None) -> None:
    """Replace the root logger's handlers by one that writes to `stream` (stderr)."""
    to = sys.stderr if stream is None else stream
    is_json = options.format == "json" or (options.format == "auto" and not to.isatty())
    handler = logging.StreamHandler(to)
    handler.setFormatter(JsonLines() if is_json else TextLines())
    logging.basicConfig(handlers=[handler], level=options.level.upper(), force=True)


class JsonLines(logging.Formatter):
    """One JSON object per line: timestamp (UTC), level, logger, message, then the fields that the record has."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {  # Any: what a JSON object holds
            "timestamp": _timestamp(record.created, record.msecs),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _fields(record)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["traceback"] = describe(record.exc_info[1])
        return _encoder.encode(line).decode()


class TextLines(logging.Formatter):
    """The same for people. A line break inside a message is shown as `\\n`, so that nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        head = f"{_timestamp(record.created, record.msecs)} {record.levelname} {record.name}: {_one_line(record.getMessage())}"
        error = record.exc_info[1] if record.exc_info else None
        return head + fields + ("\n" + describe(error).rstrip("\n") if error is not None else "")


def describe(error: BaseException) -> str:
    """A traceback without messages that may quote a request, through all causes."""
    return "".join(_described(error))


def _described(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _described(before)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from _frames(error.__traceback__)
    is_telling = isinstance(error, _TELLING) and not isinstance(error, RequestError)
    message = str(error) if is_telling else "(its message may quote a request and is not logged)"
    yield f"{type(error).__name__}: {_one_line(message)}\n"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _described(inner)


def _frames(trace: TracebackType | None) -> list[str]:
    """Files, lines and source text; never values."""
    return traceback.format_tb(trace)


def _fields(record: logging.LogRecord) -> dict[str, Any]:  # Any: as above
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}


def _timestamp(created: float, milliseconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(created))}.{int(milliseconds):03d}Z"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(item)}" for name, item in value.items())
    return _one_line(str(value))


def _one_line(text: str) -> str:
    """Control characters as escapes: line breaks, and what would move a terminal's cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

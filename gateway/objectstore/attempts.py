"""How often the object store was asked, by call and by how that ended: what a provider bills requests by, each retry for itself.

S3's are counted by botocore's events, one for every send, under S3's own names of its operations; a folder's by call. What aiohttp
sends again on a broken connection nobody tells us. Counted in the event loop's thread alone.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal  # Any: what botocore's events carry, untyped

from gateway.errors import DigestMismatch, ObjectNotFound, PreconditionFailed, StoreRefused

Outcome = Literal["ok", "refused", "failed", "abandoned"]
"""`refused`: what was asked cannot be (absent, exists, not allowed). `failed`: no usable answer, or the store's own fault."""

_THROTTLED = 429


class Attempts:
    """`counts` are by operation and outcome, since the process began."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self._sent: ContextVar[str] = ContextVar("sent", default="")

    def count(self, op: str, outcome: Outcome) -> None:
        """One more."""
        self.counts[op, outcome] = self.counts.get((op, outcome), 0) + 1

    @contextlib.contextmanager
    def call(self, op: str) -> Iterator[None]:
        """Count what happens in the block as one attempt, by the error that leaves it."""
        try:
            yield
        except asyncio.CancelledError:
            self.count(op, "abandoned")
            raise
        except (ObjectNotFound, PreconditionFailed, DigestMismatch, StoreRefused):
            self.count(op, "refused")
            raise
        except Exception:
            self.count(op, "failed")
            raise
        self.count(op, "ok")

    def watch(self, events: Any) -> None:
        """Count all that this client of S3 sends from now on."""
        events.register("before-send.s3", self._on_send)
        events.register("response-received.s3", self._on_answer)

    def abandon(self) -> None:
        """The caller was cancelled: what this task has sent and got no answer to, if anything, is not waited for any more."""
        if op := self._sent.get():
            self._sent.set("")
            self.count(op, "abandoned")

    def _on_send(self, event_name: str, **_: Any) -> None:
        self._sent.set(event_name.rpartition(".")[2])

    def _on_answer(self, event_name: str, parsed_response: Any = None, **_: Any) -> None:
        self._sent.set("")
        status = int(parsed_response["ResponseMetadata"]["HTTPStatusCode"]) if parsed_response else 0
        has_failed = status in {0, _THROTTLED} or status >= 500
        self.count(event_name.rpartition(".")[2], "failed" if has_failed else "refused" if status >= 400 else "ok")

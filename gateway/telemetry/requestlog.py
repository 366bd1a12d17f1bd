"""One log line per answer, when `log.requests` wants it: what the HTTP layer refuses, and through the data plane what was answered.

Which names a line carries is `gateway.telemetry.logs.FIELDS`. Only resolved models are named, only the reason of an error is
told: its sentence is for the caller.
"""

import logging
import re
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Literal

from gateway.accounting.usage import Usage
from gateway.calls import Call
from gateway.contract.ledger import Outcome
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.telemetry.reasons import reason_of

logger = logging.getLogger(__name__)

LINES_PER_S_MAX = 20
"""Of `failed` requests: an overloaded gateway refuses thousands a second, which `/metrics` counts and a disk would not hold."""

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

_RESOLVED = {"overloaded", "not_ready", "deadline", "artifact"}
"""Reasons that only a model which is published can have: its name is then no free text of the caller's."""


class RequestLog:
    """An observer of the data plane (only worth its time when `is_complete`), and what a refusal is reported to."""

    def __init__(self, requests: Literal["none", "failed", "all"]) -> None:
        self.is_complete = requests == "all"
        self._second = 0
        self._lines = 0
        self._from_status = {"none": 1000, "failed": 500, "all": 400}[requests]

    def observe(
        self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome, cost_picousd: int
    ) -> None:
        """A line for what was answered; what was not is `refused`."""
        if self.is_complete and outcome == "ok":
            fields = {
                "request_id": call.request_id, "trace_id": trace_id(call.sent.headers), "model": resident.name,
                "version": resident.version, "tenant": call.caller.tenant, "door": call.door.name, "status": 200,
                "rows": usage.rows, "duration_ns": usage.total_ns, "cost_picousd": cost_picousd,
            }  # fmt: skip
            logger.info("answered", extra=_present(fields))

    def refused(
        self,
        status: int,
        error: BaseException,
        *,
        request_id: str,
        model: str,
        headers: Mapping[bytes, bytes],
        arrived_ns: int,
    ) -> None:
        """A line for an error that was answered. `model` is as the caller wrote it; `arrived_ns` on `perf_counter_ns`'s clock."""
        now_ns = perf_counter_ns()
        if status >= self._from_status and (self.is_complete or self._may_write(now_ns)):
            reason = reason_of(error)
            fields = {
                "request_id": request_id, "trace_id": trace_id(headers), "status": status, "reason": reason,
                "model": model if reason in _RESOLVED else "", "error": type(error).__name__,
                "duration_ns": now_ns - arrived_ns,
            }  # fmt: skip
            logger.log(logging.WARNING if status >= 500 else logging.INFO, "refused", extra=_present(fields))

    def _may_write(self, now_ns: int) -> bool:
        """Within a second's lines; what was left out is told with the first line of a later second."""
        second = now_ns // 1_000_000_000
        if second != self._second:
            if self._lines > LINES_PER_S_MAX:
                logger.warning("%d more requests were refused and not logged", self._lines - LINES_PER_S_MAX)
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= LINES_PER_S_MAX


def trace_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's trace, when its `traceparent` is one."""
    header = headers.get(b"traceparent")
    found = _TRACEPARENT.fullmatch(header) if header else None
    return found[1].decode() if found else ""


def _present(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value != ""}

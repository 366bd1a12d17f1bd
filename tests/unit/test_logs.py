"""The log: JSON for machines, text for people, one line per record whatever a caller sends, and no payload in any of them."""

import io
import json
import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.accounting.usage import Usage
from gateway.calls import Call, Sent
from gateway.errors import InvalidInput, Overloaded, StoreUnavailable
from gateway.telemetry import logs, requestlog
from gateway.telemetry.requestlog import RequestLog, trace_id

SECRET = "sentinel-payload-4711"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {b"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01".encode()}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(options: logs.LogOptions, stream: io.StringIO | None = None) -> tuple[logging.Logger, io.StringIO]:
    to = io.StringIO() if stream is None else stream
    logs.configure(options, to)
    return logging.getLogger("gateway.somewhere"), to


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_the_record_and_only_fields_that_are_known() -> None:
    logger, stream = written(logs.LogOptions())
    logger.warning(
        "%d of %s", 3, "it", extra={"request_id": "r-1", "model": "mlp", "body": SECRET, "authorization": SECRET}
    )
    [line] = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "warning",
        "logger": "gateway.somewhere",
        "message": "3 of it",
        "request_id": "r-1",
        "model": "mlp",
    }


def test_a_terminal_gets_text_and_the_option_wins() -> None:
    for options, to, is_json in (
        (logs.LogOptions(), Terminal(), False),
        (logs.LogOptions(), io.StringIO(), True),
        (logs.LogOptions(format="json"), Terminal(), True),
        (logs.LogOptions(format="text"), io.StringIO(), False),
    ):
        logger, stream = written(options, to)
        logger.info("listening on http://127.0.0.1:%d", 8080, extra={"phases": {"imports_ns": 3}})
        assert stream.getvalue().startswith("{") == is_json
        assert re.search(r"listening on http://127\.0\.0\.1:8080\b", stream.getvalue())
        assert ("imports_ns=3" in stream.getvalue()) != is_json


@pytest.mark.parametrize("format_", ["json", "text"])
def test_what_a_caller_sends_cannot_begin_a_line_or_move_a_cursor(format_: Any) -> None:
    logger, stream = written(logs.LogOptions(format=format_))
    logger.info("path %s", "/a\r\n2026-01-01 INFO forged\x1b[2J\u2028", extra={"tenant": "t\nforged"})
    assert stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("format_", ["json", "text"])
def test_a_traceback_tells_where_and_not_what(format_: Any) -> None:
    logger, stream = written(logs.LogOptions(format=format_))
    try:
        try:
            float(SECRET)
        except ValueError as error:
            raise InvalidInput(f"column 'x' is '{SECRET}'") from error
    except InvalidInput as error:
        group = ExceptionGroup(SECRET, [error, StoreUnavailable("the bucket is away")])
        logger.error("it failed", exc_info=group)  # noqa: TRY400 - the group is what is logged
    text = stream.getvalue()
    assert SECRET not in text
    assert "Traceback (most recent call last)" in text
    assert "test_logs.py" in text
    assert "ValueError" in text
    assert "StoreUnavailable: the bucket is away" in text
    if format_ == "json":
        [line] = lines(stream)
        assert line["error"] == "ExceptionGroup"


def test_the_level_is_kept() -> None:
    logger, stream = written(logs.LogOptions(level="warning"))
    logger.info("quiet")
    logger.warning("loud")
    assert [line["message"] for line in lines(stream)] == ["loud"]


def report(log: RequestLog) -> None:
    """One answer of each kind."""
    door: Any = SimpleNamespace(name="rows")
    resident: Any = SimpleNamespace(name="mlp", version=2)
    caller: Any = SimpleNamespace(tenant="shop")
    call = Call("r-1", "champion", None, Sent(SECRET.encode(), HEADERS), door, 0, caller, SECRET)
    log.observe(call, resident, Usage(total_ns=9, rows=2), "ok", 41)
    log.observe(call, resident, Usage(total_ns=9, rows=2), "invalid", 41)
    log.refused(400, InvalidInput(SECRET), request_id="r-2", model=SECRET, headers={}, arrived_ns=0)
    log.refused(503, Overloaded(SECRET), request_id="r-3", model="mlp", headers=HEADERS, arrived_ns=0)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [("none", []), ("failed", ["r-3"]), ("all", ["r-1", "r-2", "r-3"])],
)
def test_requests_are_logged_as_the_option_says(requests: Any, expected: list[str]) -> None:
    _, stream = written(logs.LogOptions(requests=requests))
    report(RequestLog(requests))
    found = lines(stream)
    assert [line["request_id"] for line in found] == expected
    assert SECRET not in stream.getvalue()
    for line in found:
        if line["request_id"] == "r-1":
            assert (line["model"], line["version"], line["tenant"], line["door"]) == ("mlp", 2, "shop", "rows")
            assert (line["status"], line["trace_id"], line["cost_picousd"]) == (200, TRACE, 41)
        if line["request_id"] == "r-3":
            assert (line["level"], line["status"], line["reason"]) == ("warning", 503, "overloaded")
            assert (line["error"], line["trace_id"], line["model"]) == ("Overloaded", TRACE, "mlp")


def test_a_flood_of_refusals_does_not_flood_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    _, stream = written(logs.LogOptions())
    second = 0
    monkeypatch.setattr(requestlog, "perf_counter_ns", lambda: second * 10**9)
    log = RequestLog("failed")

    def refuse(count: int) -> None:
        for _ in range(count):
            log.refused(503, Overloaded("full"), request_id="r", model="mlp", headers={}, arrived_ns=0)

    refuse(1000)
    assert len(lines(stream)) == requestlog.LINES_PER_S_MAX
    second = 7
    refuse(1)
    told = lines(stream)[requestlog.LINES_PER_S_MAX :]
    assert [line["message"] for line in told] == ["980 more requests were refused and not logged", "refused"]
    second = 8
    refuse(1)
    assert [line["message"] for line in lines(stream)[-2:]] == ["refused", "refused"]


@pytest.mark.parametrize(
    "header", [b"", b"00", TRACE.encode(), b"00-" + TRACE.upper().encode() + b"-00f067aa0ba902b7-01"]
)
def test_what_is_no_trace_context_is_no_trace(header: bytes) -> None:
    assert trace_id({b"traceparent": header}) == ""
    assert trace_id({}) == ""

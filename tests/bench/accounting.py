"""`python -m tests.bench.accounting`: what weighing costs, as ratios to an empty call in the same run; rounds alternate, medians win.

One request's `charge`, then the life of a segment of 20,000 requests: settling, encoding at several gzip levels, and how long another
thread (the event loop) is kept from running meanwhile.
"""

import statistics
import threading
import time
import zlib
from collections.abc import Callable
from random import Random

from gateway.accounting import container, segment
from gateway.accounting.clock import SystemClock
from gateway.accounting.meter import Meter
from gateway.accounting.statement import Statement, settle
from gateway.contract import prices

REQUESTS = 20_000
ROUNDS = 9


def main() -> None:
    _charge()
    statement = _segment()
    _levels(statement)
    _stalls(statement)


def _charge() -> None:
    meter, calls = _meter(), []

    def empty() -> None:
        for call in calls:
            _empty(**call)

    def charge() -> None:
        for call in calls:
            meter.charge(**call)

    calls = _calls()
    empty_ns, charge_ns = _medians(empty, charge)
    print(f"empty call with the same arguments {empty_ns:6.0f} ns")
    print(f"meter.charge                       {charge_ns:6.0f} ns, {charge_ns / empty_ns:.1f} times the empty call")


def _segment() -> Statement:
    meter = _meter()
    for call in _calls():
        meter.charge(**call)
    meter.close_last()
    [interval] = meter.closed
    statement = _settle(meter)
    settle_ns, encode_ns = _medians(lambda: _settle(meter), lambda: _encode(statement))
    print(f"settle                             {settle_ns:6.0f} ns per request of {len(interval.requests)}")
    print(
        f"encode                             {encode_ns:6.0f} ns per request, {len(_encode(statement)) / REQUESTS:.0f} bytes"
    )
    return statement


def _levels(statement: Statement) -> None:
    lines = zlib.decompress(_encode(statement), segment.GZIP)
    levels = (1, 3, 6)
    times_ns = _medians(*(lambda level=level: zlib.compress(lines, level) for level in levels))  # type: ignore[misc]
    for level, time_ns in zip(levels, times_ns, strict=True):
        size = len(zlib.compress(lines, level))
        print(f"gzip level {level}                       {time_ns:6.0f} ns per request, {size / REQUESTS:.0f} bytes")


def _stalls(statement: Statement) -> None:
    """The longest gap in a thread that does nothing but look at the time, while another encodes and then drops a segment."""
    alone_ns = _longest_gap(lambda: time.sleep(0.2))
    beside_ns = _longest_gap(lambda: _encode(statement))
    print(
        f"longest pause of another thread    {beside_ns / 1e6:6.1f} ms while encoding, {alone_ns / 1e6:.1f} ms beside a sleeping one"
    )
    rows = [list(statement.requests)]
    began_ns = time.perf_counter_ns()
    rows.clear()
    print(f"dropping {REQUESTS} requests             {(time.perf_counter_ns() - began_ns) / 1e6:.2f} ms")


def _longest_gap(work: Callable[[], object]) -> int:
    thread = threading.Thread(target=work)
    thread.start()
    longest_ns, last_ns = 0, time.perf_counter_ns()
    while thread.is_alive():
        now_ns = time.perf_counter_ns()
        longest_ns, last_ns = max(longest_ns, now_ns - last_ns), now_ns
    return longest_ns


def _medians(*works: Callable[[], object]) -> list[float]:
    """Nanoseconds per request of each, measured in turns."""
    times_ns: list[list[int]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for index, work in enumerate(works):
            began_ns = time.perf_counter_ns()
            work()
            times_ns[index].append(time.perf_counter_ns() - began_ns)
    return [statistics.median(each) / REQUESTS for each in times_ns]


def _meter() -> Meter:
    clock = SystemClock()
    here = container.detect(boot_ns=clock.started_ns, platform="fargate-x86")
    meter = Meter(here, prices.load(), clock, detail_rows_max=REQUESTS * ROUNDS)
    meter.mark_ready()
    return meter


def _settle(meter: Meter) -> Statement:
    return settle(meter.closed[0], boot_ns=meter.boot_ns, vcpu=meter.vcpu, memory=meter.memory)


def _encode(statement: Statement) -> bytes:
    return segment.encode(statement, container="c0", boot_ns=1, seq=0, previous_sha256="", price_book_sha256="0" * 64)


def _calls() -> list[dict[str, object]]:
    random = Random(1)
    return [
        {
            "request_id": f"{random.getrandbits(128):032x}",
            "model": "digits",
            "version": 3,
            "variant": "int8",
            "tenant": "team-a",
            "door": "oip",
            "outcome": "ok",
            "rows": 1,
            "cpu_ns": random.randrange(1000, 3000),
            "request_bytes": random.randrange(600, 700),
            "response_bytes": random.randrange(100, 160),
            "queue_ns": random.randrange(90_000),
            "run_ns": random.randrange(150_000, 200_000),
            "batch_rows": random.randrange(1, 9),
        }
        for _ in range(REQUESTS)
    ]


def _empty(**_: object) -> None:
    """Takes the same keywords and does nothing."""


if __name__ == "__main__":
    main()

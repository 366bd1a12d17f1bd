"""`python -m tests.bench.accounting`: what weighing costs, beside an empty call in the same run. Rounds alternate, medians count.

First a served gateway with weighing and without, in turns, as the ratio of their requests per second and of their CPU per answer
(BENCH_PAIRS pairs; target: weighing costs at most 3 %): of the smallest model there is, and of the `flights` recipe with a row as
a client sends it. Then one request's `charge` and `quoted`, hot in a loop and cold as between other work, and a segment of 20,000
requests: settling, encoding, and gzip at several levels.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from gateway.accounting import container, segment
from gateway.accounting.clock import SystemClock
from gateway.accounting.meter import Meter
from gateway.accounting.statement import Statement, settle
from gateway.accounting.usage import Usage
from gateway.contract import prices
from gateway.objectstore.local import LocalStore
from tests.bench import flights
from tests.bench.cell import CORES, cpu_us, measure
from tests.support import gateways, models

PAIRS = int(os.environ.get("BENCH_PAIRS", "6"))
TARGET = 0.97
FEATURES = 32
REQUESTS = 20_000
ROUNDS = 9
COLD_CALLS = 4000
COLD_BYTES = 4 << 20
"""More than a core's own caches."""

USAGE = Usage(31_000, 8_000, 7_000, 90_000, 150_000, 300_000, 1, 4, 650, 130)
_CHARGED = ("0123456789abcdef", "digits", 3, "ok", USAGE, "int8", "team-a", "oip")
"""Arguments of `Meter.charge`, in its order."""


def main() -> None:
    _served()
    _charge()
    _quoted()
    _cold()
    statement = _segment()
    _levels(statement)


def _served() -> None:
    """Each pair of rounds follows each other at once, and its ratio is one figure: machines drift, and neighbours come and go."""
    pin = ("taskset", "-c", str(CORES[0]))
    without = (*pin, sys.executable, "-m", "tests.bench.unweighed")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        asked = asyncio.run(_published(LocalStore(root)))
        loaded = [word for model in asked for word in ("--preload", model)]
        with (
            gateways.running(root, Path(folder), *loaded, prefix=pin) as weighed,
            gateways.running(root, Path(folder), *loaded, prefix=without) as unweighed,
        ):
            for model, (path, body) in asked.items():
                for connections in (1, 16):
                    pairs = []
                    for number in range(PAIRS):
                        order = (weighed, unweighed) if number % 2 else (unweighed, weighed)
                        seen = {server: _round(server, path, body, connections) for server in order}
                        pairs.append((*seen[weighed], *seen[unweighed]))
                    _say(model, connections, pairs)


async def _published(store: LocalStore) -> dict[str, tuple[str, str]]:
    """Path and body of a request, by model."""
    await models.publish_mlp(store, features=FEATURES)
    inputs = {"name": "features", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.1] * FEATURES}
    row = await flights.published(store)
    return {"mlp": ("/v2/models/mlp/infer", json.dumps({"inputs": [inputs]})), "flights": (flights.PATH, row)}


def _round(server: gateways.Gateway, path: str, body: str, connections: int) -> tuple[float, float]:
    """Requests per second, and microseconds of CPU per answer."""
    before_us = cpu_us(server.process.pid)
    figures = measure(server.port, path, body, connections)
    return figures.rps, (cpu_us(server.process.pid) - before_us) / figures.answers


def _say(model: str, connections: int, pairs: list[tuple[float, ...]]) -> None:
    rates = sorted(on_rps / off_rps for on_rps, _, off_rps, _ in pairs)
    rate, cpu = statistics.median(rates), statistics.median(off_us / on_us for _, on_us, _, off_us in pairs)
    on_rps, on_us, off_rps, off_us = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{model:<7} {connections:>2} connections: accounting on {on_rps:.0f} req/s, {on_us:.1f} us CPU, "
        f"off {off_rps:.0f}, {off_us:.1f}; "
        f"ratio {rate:.3f} req/s ({rates[0]:.2f} to {rates[-1]:.2f}), {cpu:.3f} by CPU; "
        f"target {TARGET} {'met' if rate >= TARGET else 'missed'}",
        flush=True,
    )


def _quoted() -> None:
    """What telling both costs takes, once a factor is known."""
    meter = _meter()
    meter.charge("r", "digits", 3, "ok", Usage(1_000_000, rows=1))
    time.sleep(0.01)  # until the bill covers the receipt
    meter.close_interval(max(meter.closable_ns, time.time_ns()))
    assert meter.quoted(56_222)[1] is not None
    began_ns = time.perf_counter_ns()
    for _ in range(REQUESTS):
        meter.quoted(56_222)
    print(f"meter.quoted                       {(time.perf_counter_ns() - began_ns) / REQUESTS:6.0f} ns")


def _charge() -> None:
    """Written out twice: a loop over functions or over arguments would cost more than what it measures."""
    meter, minute = _meter(), _meter(detail_share=0)

    def empty() -> None:
        for _ in range(REQUESTS):
            _empty("0123456789abcdef", "digits", 3, "ok", USAGE, "int8", "team-a", "oip")

    def charge() -> None:
        for _ in range(REQUESTS):
            meter.charge("0123456789abcdef", "digits", 3, "ok", USAGE, "int8", "team-a", "oip")

    def sums() -> None:
        for _ in range(REQUESTS):
            minute.charge("0123456789abcdef", "digits", 3, "ok", USAGE, "int8", "team-a", "oip")

    def clocks() -> None:
        for _ in range(REQUESTS):
            time.thread_time_ns()
            time.thread_time_ns()

    empty_ns, charge_ns, sums_ns, clocks_ns = _medians(empty, charge, sums, clocks)
    print(f"empty call with the same arguments {empty_ns:6.0f} ns")
    print(f"meter.charge                       {charge_ns:6.0f} ns, {charge_ns / empty_ns:.1f} times the empty call")
    print(f"meter.charge, sums only            {sums_ns:6.0f} ns, {sums_ns / charge_ns:.2f} times that with a line")
    print(f"reading the thread's clock twice   {clocks_ns:6.0f} ns, which every request needs")


def _cold() -> None:
    """Single calls with other work between them, which leaves neither data nor code of theirs in the nearer caches.

    A served request finds them nearly so: what it costs more with accounting is between these medians and what loops show, nearer
    to the loops the more requests come at once.
    """
    meter = _meter()
    steps: dict[str, tuple[Callable[..., object], Sequence[object]]] = {
        "nothing": (_nothing, ()),
        "thread_time_ns, twice": (_clocks, ()),
        "meter.charge": (meter.charge, _CHARGED),
        "meter.quoted": (meter.quoted, (56_222,)),
    }
    meter.charge(*_CHARGED)
    time.sleep(0.01)  # until the bill covers the receipt
    meter.close_interval(max(meter.closable_ns, time.time_ns()))
    times_ns: dict[str, list[int]] = {name: [] for name in steps}
    memory, text = b"\1" * COLD_BYTES, json.dumps({"inputs": [0.1] * FEATURES})
    for _ in range(COLD_CALLS):
        for name, (call, arguments) in steps.items():
            memory.count(0)
            json.dumps(json.loads(text))
            began_ns = time.perf_counter_ns()
            call(*arguments)
            times_ns[name].append(time.perf_counter_ns() - began_ns)
    nothing_ns = statistics.median(times_ns.pop("nothing"))
    for name, each in times_ns.items():
        print(f"cold: {name:<28} {statistics.median(each) - nothing_ns:6.0f} ns")


def _nothing() -> None:
    pass


def _clocks() -> None:
    time.thread_time_ns()
    time.thread_time_ns()


def _segment() -> Statement:
    meter = _meter()
    _requests(meter)
    meter.close_last()
    statement = _settle(meter)
    settle_ns, encode_ns = _medians(lambda: _settle(meter), lambda: _encode(statement))
    print(f"settle                             {settle_ns:6.0f} ns per request")
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
        print(f"zlib level {level}                       {time_ns:6.0f} ns per request, {size / REQUESTS:.0f} bytes")


def _medians(*works: Callable[[], object]) -> list[float]:
    """Nanoseconds of CPU per request of each, measured in turns: neighbours on the machine do not count."""
    times_ns: list[list[int]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for index, work in enumerate(works):
            began_ns = time.thread_time_ns()
            work()
            times_ns[index].append(time.thread_time_ns() - began_ns)
    return [statistics.median(each) / REQUESTS for each in times_ns]


def _meter(detail_share: float = 1) -> Meter:
    clock = SystemClock()
    here = container.detect(boot_ns=clock.started_ns, platform="fargate-x86", environ={})
    meter = Meter(here, prices.load(), clock, detail_rows_max=REQUESTS * ROUNDS, detail_share=detail_share)
    meter.on_full(REQUESTS * ROUNDS + 1, lambda: None)
    meter.mark_ready()
    return meter


def _settle(meter: Meter) -> Statement:
    return settle(meter.closed[0], vcpu=meter.vcpu, memory=meter.memory)


def _encode(statement: Statement) -> bytes:
    return segment.encode(statement, container="c0", boot_ns=1, seq=0, previous_sha256="", price_book_sha256="0" * 64)


def _requests(meter: Meter) -> None:
    random = Random(1)
    for number in range(REQUESTS):
        meter.charge(
            request_id=f"0123456789abcdef-{number:x}",  # as the gateway makes them
            model="digits",
            version=3,
            outcome="ok",
            usage=Usage(
                cpu_ns=random.randrange(1000, 3000),
                queue_ns=random.randrange(90_000),
                run_ns=random.randrange(150_000, 200_000),
                rows=1,
                batch_rows=random.randrange(1, 9),
                request_bytes=random.randrange(600, 700),
                response_bytes=random.randrange(100, 160),
            ),
            variant="int8",
            tenant="team-a",
            door="oip",
        )


def _empty(
    request_id: str,
    model: str,
    version: int,
    outcome: str,
    usage: Usage,
    variant: str = "",
    tenant: str = "",
    door: str = "",
    is_request: bool = True,
) -> int:
    """`Meter.charge`'s signature and nothing else."""
    return 0


if __name__ == "__main__":
    main()

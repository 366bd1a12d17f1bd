"""`make bench-peers`: the same ONNX files under this gateway and under other Python model servers, one table per model, in one run.

All servers stay up, but stopped unless measured, and each round goes through all of them. A server is measured once its answer is
that of bare `session.run`; one that cannot be installed, started or measured becomes a row that says why.
"""

import asyncio
import contextlib
import http.client
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.objectstore.local import LocalStore
from tests.bench.cell import CONNECTIONS, CORES, ROUNDS, SECONDS, LoadFailed, measure
from tests.bench.peers import environments, processes, table
from tests.bench.peers.contenders import CONTENDERS, SUBJECTS, Contender, Rows, Subject, Wire
from tests.bench.session import session
from tests.support.servers import free_ports

LOAD_BUSY_MAX = 0.8  # beyond this the load generator's own speed is part of the figures


class Trial(msgspec.Struct, frozen=True):
    """One subject's files, the row that everybody is sent, and what bare `session.run` makes of it, in how many milliseconds."""

    subject: Subject
    folder: Path
    x: Rows
    expected: NDArray[np.float32]
    run_ms: float


class Started(msgspec.Struct, frozen=True):
    """A server that has answered correctly, and waits stopped."""

    row: table.Row
    server: processes.Server
    port: int
    path: str
    body: str


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or stopped servers would stay behind
    for subject in SUBJECTS:
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            trial = _prepare(subject, Path(folder))
            rows = compare(trial, CONTENDERS)
        milliseconds = f"{trial.run_ms:.3f} ms, {1e3 / trial.run_ms:,.0f} per second"
        print(f"\n{subject.name} of {list(trial.x.shape)} floats, bare session.run {milliseconds}")
        print(f"{_conditions(rows)}\n{table.render(rows)}", flush=True)


def compare(trial: Trial, contenders: Sequence[Contender]) -> list[table.Row]:
    """A row for each contender, whatever becomes of it."""
    rows = [table.Row(contender.name) for contender in contenders]
    started = []
    with contextlib.ExitStack() as stack:
        for row, contender in zip(rows, contenders, strict=True):
            try:
                started.append(_start(stack, trial, row, contender))
            except processes.StartFailed as error:
                row.missing = str(error)
        for number in range(ROUNDS):  # the outer loop, so that a cell's rounds lie far apart
            print(f"{trial.subject.name}: round {number + 1} of {ROUNDS}", file=sys.stderr)
            for connections in CONNECTIONS:
                for each in started:
                    _measure(each, connections)
    return rows


def _prepare(subject: Subject, folder: Path) -> Trial:
    store, graph = folder / "store", folder / "model.onnx"
    store.mkdir()
    asyncio.run(subject.publish(LocalStore(store), "model"))
    graph.write_bytes(subject.graph())
    x = np.random.default_rng(0).normal(size=(1, *subject.shape)).round(5)
    bare, inputs = session(str(graph)), {subject.input: x.astype(np.float32)}
    times_ns = []
    for _ in range(500):
        began_ns = time.perf_counter_ns()
        [y] = bare.run(None, inputs)
        times_ns.append(time.perf_counter_ns() - began_ns)
    return Trial(subject, folder, x, y, statistics.median(times_ns) / 1e6)


def _start(stack: contextlib.ExitStack, trial: Trial, row: table.Row, contender: Contender) -> Started:
    python = environments.python(contender.package) if contender.package else sys.executable
    (port,) = free_ports(1)
    graph, store = trial.folder / "model.onnx", trial.folder / "store"
    command = [python, *(each.format(graph=graph, store=store, port=port) for each in contender.arguments)]
    home = trial.folder / contender.name.replace(" ", "-")
    home.mkdir()
    server = stack.enter_context(processes.running(command, home))
    body = json.dumps(contender.wire.request(trial.subject.input, trial.x), separators=(",", ":"))
    try:
        server.await_answer(lambda: _problem(contender.wire, port, body, trial.expected))
    except processes.StartFailed:
        server.kill()
        raise
    server.pause()
    return Started(row, server, port, contender.wire.path, body)


def _problem(wire: Wire, port: int, body: str, expected: NDArray[np.float32]) -> str:
    """Why there is no answer yet; nothing when there is. Raises StartFailed at a wrong one."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("POST", wire.path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            status, answer = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    if status != http.HTTPStatus.OK:
        return f"status {status} {answer[:200]!r}"
    numbers = np.ravel(wire.answer(json.loads(answer)))
    if not np.allclose(numbers, expected.ravel(), rtol=1e-4, atol=1e-5):
        raise processes.StartFailed(f"it answers {numbers[:3]}... where session.run answers {expected.ravel()[:3]}...")
    return ""


def _measure(each: Started, connections: int) -> None:
    if each.row.missing:
        return
    each.server.resume()
    try:
        cpu_us = each.server.cpu_us()
        figures = measure(each.port, each.path, each.body, connections)
        each.row.add(connections, figures, (each.server.cpu_us() - cpu_us) / figures.answers)
        each.row.resident_mb = each.server.resident_mb()
    except LoadFailed as error:
        each.row.missing = f"at {connections} connections: {str(error).strip().splitlines()[-1]}"
        each.server.kill()
    else:
        each.server.pause()


def _conditions(rows: Sequence[table.Row]) -> str:
    busy = table.load_busy_max(rows)
    text = (
        f"JSON; servers on core {CORES[0]}, load from core {CORES[-1]} by tests/bench/load.py, which took at most {busy:.0%} "
        f"of it; best of {ROUNDS} rounds of {SECONDS:g} s, of which a middling round reached {table.steadiness(rows):.0%}"
    )
    return (
        text if busy < LOAD_BUSY_MAX else f"{text}\nTHE LOAD GENERATOR MAY BE WHAT WAS MEASURED: it was busy {busy:.0%}"
    )


if __name__ == "__main__":
    main()

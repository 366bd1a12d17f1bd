"""The peer bench's own parts: its table, and that it ends what it started, whatever that did. No peer is needed."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.bench.cell import CONNECTIONS, Figures
from tests.bench.peers import __main__ as runner
from tests.bench.peers import contenders, processes, table


def test_best_rounds_are_compared_and_a_missing_server_says_why() -> None:
    rows = [table.Row("gateway"), table.Row("slow"), table.Row("absent", missing="it ended with 1: no such module")]
    for count in CONNECTIONS:
        for gateway, slow, cpu_us in ((100, 50, 90), (1000, 200, 95), (900, 250, 200)):
            rows[0].add(count, _figures(gateway), 40)
            rows[1].add(count, _figures(slow), cpu_us)
    head, counts, gateway_line, slow_line, absent_line = table.render(rows).splitlines()
    assert "gateway / this" in head
    assert counts.split()[1:4] == ["c=1", "c=16", "c=64"]
    assert gateway_line.split()[1:4] == ["1,000"] * 3
    assert slow_line.split()[-6:] == ["4.00"] * 3 + ["95"] * 3
    assert table.steadiness(rows) == pytest.approx((0.9 + 0.8) / 2)
    assert absent_line == "absent   not measured: it ended with 1: no such module"


def test_ratios_stay_empty_without_a_gateway() -> None:
    rows = [table.Row("gateway", missing="not installed"), table.Row("other")]
    for count in CONNECTIONS:
        rows[1].add(count, _figures(50), 1)
    assert table.render(rows).splitlines()[-1].split() == ["other", "50", "50", "50", "20.00", "0", "1", "1", "1"]


def test_a_server_that_cannot_start_is_a_row_with_its_last_words(tmp_path: Path) -> None:
    command = ("-c", "import sys; print('one worker too few'); sys.exit(7)")
    broken = contenders.Contender("broken", contenders.CONTENDERS[0].wire, command)
    trial = runner.Trial(contenders.SUBJECTS[0], tmp_path, np.zeros((1, 32)), np.zeros((1, 10), np.float32), 1.0)
    [row] = runner.compare(trial, [broken])
    assert row.missing == "it ended with 7: one worker too few"


def test_workers_in_sessions_of_their_own_end_with_their_server(tmp_path: Path) -> None:
    worker = "setsid sh -c 'echo $$ > worker; exec sleep 60' & wait"
    with processes.running(["sh", "-c", worker], tmp_path) as server:
        server.await_answer(lambda: "" if _text(tmp_path / "worker") else "no worker")
        pid = int(_text(tmp_path / "worker"))
        server.pause()
        server.await_answer(lambda: "" if _state(pid) == "T" else "it runs on")
        server.resume()
        server.await_answer(lambda: "" if _state(pid) == "S" else "it does not sleep its 60 s")
        assert os.sched_getaffinity(pid) == {min(os.sched_getaffinity(0))}
    assert _state(pid) in {"Z", "gone"}


def _figures(rps: float) -> Figures:
    return Figures(rps=rps, p50_us=1e3 / rps * 1e3, p99_us=0, load_busy=0.1, answers=1)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _state(pid: int) -> str:
    """As ps shows it: T is stopped, S sleeping, Z dead and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return "gone"

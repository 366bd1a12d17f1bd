"""The system clock: this process's own start, time, CPU and memory."""

import os
import subprocess
import sys
import time

import pytest

from gateway.accounting.clock import SystemClock

SECOND_NS = 10**9


def test_time_is_wall_time_and_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    assert abs(clock.now_ns() - time.time_ns()) < 5 * SECOND_NS
    before_ns = clock.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 0)  # the wall clock is set back to 1970
    assert clock.now_ns() >= before_ns


def test_the_start_is_the_process_s_and_not_the_clock_s() -> None:
    """A child that waits before it makes its clock has still begun when it was started."""
    code = (
        "import time; began = time.time_ns(); time.sleep(0.3)\n"
        "from gateway.accounting.clock import SystemClock\n"
        "clock = SystemClock(); print(clock.started_ns - began, clock.now_ns() - clock.started_ns)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    start_after_first_line_ns, age_ns = map(int, out.split())
    assert start_after_first_line_ns <= 10_000_000  # a clock tick
    assert age_ns >= 300_000_000


def test_cpu_is_counted_and_sleep_is_not() -> None:
    clock = SystemClock()
    before_ns = clock.cpu_ns(), clock.thread_cpu_ns()
    sum(range(200_000))
    assert clock.cpu_ns() > before_ns[0]
    assert clock.thread_cpu_ns() > before_ns[1]


def test_memory_is_read_even_when_no_file_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened a file"))
    before = clock.rss_bytes()
    held = bytearray(os.urandom(1)) * (64 << 20)
    assert clock.rss_bytes() - before > len(held) // 2

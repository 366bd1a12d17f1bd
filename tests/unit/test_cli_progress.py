"""How far a long command is: lines for a log, few of them; a bar for a terminal; nothing on standard output."""

import io

from gateway.cli import progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_few_seconds_and_none_of_a_short_run():
    file, clock = io.StringIO(), Clock()
    with progress.shown("compacting", "hours", file, clock) as note:
        for done in range(60):
            note(done, 60, f"hour {done}")
            clock.now_s += progress.LINE_EVERY_S / 10
        note(60, 60, "")
    assert file.getvalue().splitlines() == [f"compacting: {n} of 60 hours, now hour {n}" for n in range(10, 60, 10)]


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind():
    file = Terminal()
    with progress.shown("compacting", "hours", file) as note:
        note(3, 60, "2026-11-05T12:00Z")
    assert "compacting" in file.getvalue()
    assert "\x1b[" in file.getvalue()

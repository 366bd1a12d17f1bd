"""The cold start record: marks that leave nothing out, loads among them, one log line."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.accounting.clock import age_ns
from gateway.contract.ledger import Phases
from gateway.telemetry import startup as startup_module
from gateway.telemetry.startup import LoadTimes, Startup
from tests.support import meters
from tests.support.manualclock import ManualClock

MS = 1_000_000


class Steps:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 1000 * MS

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * MS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(startup_module, "monotonic_ns", steps)
    return steps


def started(clock: Steps) -> Startup:
    return Startup(entered_ns=clock.now_ns - 20 * MS, process_ns=clock.now_ns - 50 * MS)


def first_answer(startup: Startup, *, outcome: str = "ok", run_ns: int = 5) -> None:
    usage: Any = SimpleNamespace(run_ns=run_ns)
    startup.observe(None, None, usage, outcome, 0)


def test_every_moment_until_ready_has_a_name(clock: Steps) -> None:
    startup = started(clock)
    clock.pass_ms(100)
    startup.mark_imports()
    clock.pass_ms(3)
    startup.mark_settings()
    clock.pass_ms(7)
    startup.mark_store()
    startup.loaded(Phases(download_ns=4 * MS, verify_ns=1 * MS, session_ns=9 * MS, warm_up_ns=2 * MS))
    clock.pass_ms(18)  # the load and 2 ms of something else
    startup.mark_loads()
    clock.pass_ms(30)
    startup.mark_app()
    startup.mark_ready()
    found = startup.phases
    assert (found.interpreter_ns, found.imports_ns, found.settings_ns) == (30 * MS, 120 * MS, 3 * MS)
    assert (found.store_ns, found.app_ns, found.other_ns) == (7 * MS, 30 * MS, 2 * MS)
    assert found.ready_ns == 208 * MS
    named = [getattr(found, name) for name in Phases.__struct_fields__ if name not in {"ready_ns", "first_answer_ns"}]
    assert sum(named) == found.ready_ns


def test_loads_at_the_same_time_never_make_the_rest_negative(clock: Steps) -> None:
    startup = started(clock)
    for _ in range(2):
        startup.loaded(Phases(session_ns=400 * MS))
    clock.pass_ms(400)
    startup.mark_ready()
    assert (startup.phases.session_ns, startup.phases.other_ns) == (800 * MS, 0)


def test_the_first_answer_ends_the_record_and_is_logged_once(clock: Steps, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    startup, told = started(clock), []
    startup.on_change = lambda phases: told.append(phases.first_answer_ns)
    startup.mark_ready()
    first_answer(startup, outcome="invalid")
    assert not caplog.records
    clock.pass_ms(5)
    first_answer(startup, run_ns=77)
    first_answer(startup, run_ns=99)
    startup.loaded(Phases(session_ns=1))
    startup.log()
    [record] = caplog.records
    assert record.message == "cold start"
    assert record.__dict__["phases"]["first_run_ns"] == 77
    assert startup.phases.session_ns == 0
    assert startup.phases.first_answer_ns == 55 * MS
    assert told == [0, 55 * MS]


def test_a_gateway_that_nobody_asked_logs_its_start_when_it_ends(
    caplog: pytest.LogCaptureFixture, clock: Steps
) -> None:
    caplog.set_level(logging.INFO)
    startup = started(clock)
    startup.log()
    startup.log()
    assert [record.message for record in caplog.records] == ["cold start"]


def test_the_real_clocks_agree_on_when_this_process_began() -> None:
    found = Startup().phases
    assert 0 <= found.interpreter_ns <= age_ns()


def test_the_page_shows_each_phase(clock: Steps) -> None:
    startup = started(clock)
    shown = {labels[0]: value for _, labels, value in startup.read()}
    assert shown["interpreter"] == 30 * MS
    assert set(shown) == {name.removesuffix("_ns") for name in Phases.__struct_fields__}


def test_the_times_of_all_loads_add_up() -> None:
    times = LoadTimes()
    times.loaded(Phases(download_ns=1, verify_ns=2, session_ns=3, warm_up_ns=4, ready_ns=99))
    times.loaded(Phases(session_ns=30))
    assert {labels[0]: value for _, labels, value in times.read()} == {
        "download": 1,
        "verify": 2,
        "session": 33,
        "warm_up": 4,
    }


def test_the_ledger_posts_the_phases_of_boot_and_of_loads() -> None:
    clock = ManualClock(meters.BOOT_NS)
    meter = meters.meter(clock)
    clock.work(10**9, cpu_ns=5 * 10**8)
    load = Phases(download_ns=3, session_ns=4)
    meter.note_load("digits", 1, 10**6, load)
    meter.note_load("plain", 1, 10**6)
    meter.mark_ready()
    start = Phases(imports_ns=300, ready_ns=400)
    meter.note_start(start)
    start.first_run_ns = 9  # goes on growing elsewhere: only what was told counts
    clock.work(10**9)
    meter.note_start(start)
    start.first_answer_ns = 10
    postings = [posting for posting in meters.close(meter, clock).postings if posting.phases is not None]
    assert {(p.account, p.sku, p.model): p.phases for p in postings} == {
        ("boot", meters.VCPU, ""): Phases(imports_ns=300, ready_ns=400, first_run_ns=9),
        ("load", meters.VCPU, "digits"): load,
    }
    clock.work(10**9)
    meter.note_start(start)  # too late: boot is in the ledger
    assert not [posting for posting in meters.close(meter, clock).postings if posting.phases is not None]

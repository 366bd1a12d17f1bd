"""Where a cold start goes: one record from the process's beginning to its first answer, for the log, `/metrics` and the ledger.

`gateway.cli.serve` begins it, whoever finishes a step marks it, the data plane's first answer ends it.
"""

import logging
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any

import msgspec

import gateway
from gateway.accounting.clock import age_ns
from gateway.contract.ledger import Phases
from gateway.telemetry import definitions as d

logger = logging.getLogger(__name__)


class Startup:
    """The record. `phases` may be read at any time; `on_change` is called when it has grown after the gateway was ready.

    Marks follow each other: a mark names what was done since the one before, so nothing is left out and nothing counted twice.
    """

    def __init__(self, *, entered_ns: int | None = None, process_ns: int | None = None) -> None:
        """By default our first line is when `gateway` was imported, and the process began when /proc says (to 10 ms)."""
        now_ns = monotonic_ns()
        self._marked_ns = gateway.ENTERED_NS if entered_ns is None else entered_ns
        self._began_ns = now_ns - age_ns() if process_ns is None else process_ns
        self.phases = Phases(interpreter_ns=max(0, self._marked_ns - self._began_ns))
        self.on_change: Callable[[Phases], None] = _nobody_listens
        self._is_logged = False

    def mark_imports(self) -> None:
        """Everything is imported."""
        self.phases.imports_ns += self._since_mark()

    def mark_settings(self) -> None:
        """Settings are read and checked."""
        self.phases.settings_ns += self._since_mark()

    def mark_store(self) -> None:
        """The store is open and has answered."""
        self.phases.store_ns += self._since_mark()

    def loaded(self, load: Phases) -> None:
        """A model was loaded: part of the start until the first answer."""
        if not self.phases.first_answer_ns:
            for name in _LOAD:
                setattr(self.phases, name, getattr(self.phases, name) + getattr(load, name))

    def mark_app(self) -> None:
        """The HTTP application is built; loads before it are not part of it."""
        self.phases.app_ns += self._since_mark()

    def mark_loads(self) -> None:
        """What was to be loaded before the gateway is ready is loaded; `loaded` was told of each."""
        self._since_mark()

    def mark_ready(self) -> None:
        """Requests may come. What no mark and no load has named until now is `other`."""
        phases = self.phases
        phases.ready_ns = max(0, monotonic_ns() - self._began_ns)
        named_ns = sum(getattr(phases, name) for name in _UNTIL_READY)
        phases.other_ns = max(0, phases.ready_ns - named_ns)
        self.on_change(phases)

    def observe(self, call: object, resident: object, usage: Any, outcome: str, cost_picousd: int) -> None:
        """An observer of the data plane (Any: of a usage only its run counts); the first answer ends the record."""
        if not self._is_logged and outcome == "ok":
            self.phases.first_run_ns = usage.run_ns
            self.phases.first_answer_ns = max(1, monotonic_ns() - self._began_ns)
            self.on_change(self.phases)
            self.log()

    def log(self) -> None:
        """One record, once: with the first answer, or when the gateway ends without any."""
        if not self._is_logged:
            self._is_logged = True
            logger.info("cold start", extra={"phases": msgspec.to_builtins(self.phases)})

    def read(self) -> Iterator[tuple[d.Metric, tuple[str, ...], int]]:
        """A source of `/metrics`."""
        for name in _NAMES:
            yield d.COLD_START_SECONDS, (name.removesuffix("_ns"),), getattr(self.phases, name)

    def _since_mark(self) -> int:
        before_ns, self._marked_ns = self._marked_ns, monotonic_ns()
        return self._marked_ns - before_ns


class LoadTimes:
    """Where all loads together spent their time, for `/metrics`; of each, `loaded` is told."""

    def __init__(self) -> None:
        self._total = Phases()

    def loaded(self, load: Phases) -> None:
        for name in _LOAD:
            setattr(self._total, name, getattr(self._total, name) + getattr(load, name))

    def read(self) -> Iterator[tuple[d.Metric, tuple[str, ...], int]]:
        """A source of `/metrics`."""
        for name in _LOAD:
            yield d.LOAD_PHASE_SECONDS, (name.removesuffix("_ns"),), getattr(self._total, name)


_NAMES = Phases.__struct_fields__
_LOAD = ("download_ns", "verify_ns", "session_ns", "warm_up_ns")
_UNTIL_READY = ("interpreter_ns", "imports_ns", "settings_ns", "store_ns", *_LOAD, "app_ns")


def _nobody_listens(_: Phases) -> None:
    """Until accounting is there."""

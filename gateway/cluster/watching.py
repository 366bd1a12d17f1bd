"""Looks at a cluster once a second: scrapes all gateways, draws the table, and asks the autoscaler where there is one."""

import asyncio
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway.cluster import table
from gateway.cluster.activator import Activator
from gateway.cluster.autoscaling import Autoscaler
from gateway.cluster.fleet import Fleet
from gateway.cluster.scraping import Figures, scrape, total

SCRAPE_S = 1.0


class Watch:
    """A context manager: the table stays on the terminal while it is entered, and is printed once more at the end."""

    def __init__(self, fleet: Fleet, activator: Activator, scaler: Autoscaler | None, console: Console) -> None:
        self._fleet = fleet
        self._activator = activator
        self._scaler = scaler
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._now: Mapping[str, Figures] = {}
        self._before: Mapping[str, Figures] = {}
        self._gone = Figures()
        self._at_s = self._elapsed_s = 0.0

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if self._now or self._gone.loads:
            self._console.print(self._table())

    async def keep(self) -> None:
        """Until cancelled."""
        if self._live:
            self._live.start()
        while True:
            await self.look()
            if self._live:
                self._live.update(self._table(), refresh=True)
            await asyncio.sleep(SCRAPE_S)

    async def look(self) -> None:
        """Once."""
        members = list(self._fleet.members)
        found = await scrape({member.name: member.address for member in members})
        now_s = asyncio.get_running_loop().time()
        here = {member.name for member in members}
        left = [figures for name, figures in self._now.items() if name not in here]
        self._gone = table.with_gone(Figures(), total([self._gone, *left]))
        self._elapsed_s, self._at_s = now_s - self._at_s, now_s
        # A busy gateway that did not answer in time keeps its last figures.
        self._before, self._now = self._now, {name: f for name, f in self._now.items() if name in here} | found
        if self._scaler:
            self._scale(self._scaler, now_s)

    def _scale(self, scaler: Autoscaler, now_s: float) -> None:
        fleet, activator = self._fleet, self._activator
        living = total(list(self._now.values()))
        counted = table.with_gone(living, self._gone)
        if activator.passed:
            longest_s, count = max(activator.passed), len(activator.passed)
            activator.passed.clear()
            fleet.say(f"cold start: {count} requests waited for a gateway, at most {longest_s:.1f} s")
        wanted = scaler.decide(
            now_s,
            running=len(fleet.members),
            saturation=living.saturation,
            requests=counted.requests + counted.refusals + activator.held,
            waiting=activator.waiting,
        )
        if wanted != fleet.wanted:
            fleet.say(f"autoscaler: saturation {living.saturation:.2f}, from {fleet.wanted} to {wanted} gateways")
            fleet.want(wanted)

    def _table(self) -> Table:
        return table.drawn(self._fleet.members, self._now, self._before, max(self._elapsed_s, 0.001), self._gone)

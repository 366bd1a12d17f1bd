"""Aliases, canaries, shadows and their history on a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Table

from gateway.contract.registry import WHOLE_BP, Promotion


def models(rows: Sequence[tuple[str, Sequence[Promotion], Sequence[int]]]) -> Table:
    """Every model with a row for each alias; the versions stand in its first row."""
    table = Table("model", "alias", "champion", "canaries", "shadow", "versions", box=None, pad_edge=False)
    for name, aliases, versions in rows:
        listed = ", ".join(map(str, versions))
        if not aliases:
            table.add_row(name, "none", "", "", "", listed)
        for number, entry in enumerate(aliases):
            first = number == 0
            cells = (entry.alias, str(entry.version), _canaries(entry), _shadow(entry))
            table.add_row(name if first else "", *cells, listed if first else "")
    return table


def history(entries: Sequence[Promotion]) -> Table:
    """The newest first."""
    table = Table("generation", "time (UTC)", "alias", "decision", "by", "reason", box=None, pad_edge=False)
    for entry in reversed(entries):
        when = datetime.fromtimestamp(entry.promoted_ns / 1e9, UTC)
        table.add_row(
            str(entry.generation),
            f"{when:%Y-%m-%d %H:%M:%S}",
            entry.alias,
            sentence(entry) + (f", as in generation {entry.restores}" if entry.restores else ""),
            escape(entry.actor),
            escape(entry.reason),
        )
    return table


def sentence(entry: Promotion) -> str:
    """Who answers: `version 3, canary 4 at 5 %, shadow 5`."""
    canaries = [f"canary {canary.version} at {percent(canary.weight_bp)}" for canary in entry.canaries]
    shadow = [f"shadow {_shadow(entry)}"] if entry.shadow else []
    return ", ".join([f"version {entry.version}", *canaries, *shadow])


def percent(share_bp: int) -> str:
    return f"{share_bp / 100:g} %"


def _canaries(entry: Promotion) -> str:
    return ", ".join(f"{canary.version} at {percent(canary.weight_bp)}" for canary in entry.canaries)


def _shadow(entry: Promotion) -> str:
    if entry.shadow is None:
        return ""
    share_bp = entry.shadow.sample_bp
    return str(entry.shadow.version) if share_bp == WHOLE_BP else f"{entry.shadow.version} on {percent(share_bp)}"

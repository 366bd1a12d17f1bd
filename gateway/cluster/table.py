"""The cluster as one table in the terminal: what a Prometheus that scrapes all gateways would show, once a second."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from gateway.cluster.fleet import Member
from gateway.cluster.scraping import Figures, total

HEADS = (
    "gateway",
    "pid",
    "start s",
    "req/s",
    "requests",
    "refused",
    "in flight",
    "saturation",
    "models",
    "loads",
    "direct µ$",
)


def drawn(
    members: Sequence[Member],
    now: Mapping[str, Figures],
    before: Mapping[str, Figures],
    elapsed_s: float,
    gone: Figures,
) -> Table:
    """`before` is `elapsed_s` older than `now`; `gone` is what gateways that are no more had counted when they were last asked."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "gateway" else "right", no_wrap=True)
    for member in members:
        if member.name in now:
            figures, earlier = now[member.name], before.get(member.name, now[member.name])
            rate = (figures.requests - earlier.requests) / elapsed_s
            table.add_row(member.name, str(member.child.pid), f"{member.start_s:.1f}", f"{rate:,.0f}", *_cells(figures))
        else:
            table.add_row(member.name, str(member.child.pid), f"{member.start_s:.1f}", "does not answer")
    if gone.requests or gone.loads:
        table.add_row("gone", "", "", "", *_cells(gone)[:2], "", "", "", *_cells(gone)[5:], style="dim")
    known = [now[member.name] for member in members if member.name in now]
    known_before = [before.get(member.name, now[member.name]) for member in members if member.name in now]
    rate = (total(known).requests - total(known_before).requests) / elapsed_s
    everything = with_gone(total(known), gone)
    table.add_row(f"all {len(members)}", "", "", f"{rate:,.0f}", *_cells(everything), style="bold")
    return table


def with_gone(living: Figures, gone: Figures) -> Figures:
    """What has been counted of both, and the state of the living."""
    both = total([living, gone])
    return Figures(
        both.requests, both.refusals, both.cost_picousd, both.loads, living.models, living.in_flight, living.saturation
    )


def _cells(figures: Figures) -> tuple[str, ...]:
    return (
        f"{figures.requests:,}",
        f"{figures.refusals:,}",
        f"{figures.in_flight:,}",
        f"{figures.saturation:.2f}",
        f"{figures.models:,}",
        f"{figures.loads:,}",
        f"{figures.cost_picousd / 1e6:,.2f}",
    )

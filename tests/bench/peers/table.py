"""The table of one model: a row for each server, with its figures or with the reason why it has none. Called by the runner."""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from tests.bench.cell import CONNECTIONS, Figures

BASE = "gateway"
REASON_CHARS = 180  # pip lists every version that it did not want


class Row(msgspec.Struct):
    """One server: by connections, the figures of each round and the CPU time that it spent per answer, in microseconds."""

    name: str
    cells: dict[int, list[Figures]] = msgspec.field(default_factory=dict)
    cpu_us: dict[int, list[float]] = msgspec.field(default_factory=dict)
    resident_mb: float = 0.0
    missing: str = ""

    def add(self, connections: int, figures: Figures, cpu_us: float) -> None:
        self.cells.setdefault(connections, []).append(figures)
        self.cpu_us.setdefault(connections, []).append(cpu_us)


def render(rows: Sequence[Row]) -> str:
    """The best round of each cell, and ratios of those: other work on the machine only ever slows a server down.

    CPU time per answer, a median, hardly feels that work: on a busy machine it is the column to trust.
    """
    width = max(len(row.name) for row in rows)
    requests, ratios, cpu = (
        f"{title:<{9 * len(CONNECTIONS)}}" for title in ("req/s", f"{BASE} / this", "CPU us per answer")
    )
    counts = "".join(f"{f'c={count}':>9}" for count in CONNECTIONS)
    lines = [
        f"{'':<{width}}    {requests}   p50 ms  resident    {ratios}    {cpu}".rstrip(),
        f"{'server':<{width}}  {counts}      c=1        MB  {counts}  {counts}",
    ]
    base = next((row.cells for row in rows if row.name == BASE and not row.missing), {})
    return "\n".join(lines + [f"{row.name:<{width}}  {_line(row, base)}" for row in rows])


def steadiness(rows: Sequence[Row]) -> float:
    """What a middling round reached of its cell's best, over all cells: 1 on a machine that did nothing else."""
    cells = [[figures.rps for figures in cell] for row in rows for cell in row.cells.values()]
    return statistics.median(statistics.median(cell) / max(cell) for cell in cells) if cells else 0.0


def load_busy_max(rows: Sequence[Row]) -> float:
    """The largest share of its core that the load generator needed in any cell."""
    return max((f.load_busy for row in rows for cell in row.cells.values() for f in cell), default=0.0)


def _line(row: Row, base: Mapping[int, Sequence[Figures]]) -> str:
    if row.missing:
        return f"not measured: {row.missing:.{REASON_CHARS}}"
    rps = "".join(f"{_rps(row.cells[count]):>9,.0f}" for count in CONNECTIONS)
    p50_ms = min(figures.p50_us for figures in row.cells[CONNECTIONS[0]]) / 1e3
    ratios = "".join(
        f"{_rps(base[count]) / _rps(row.cells[count]):>9.2f}" if base else f"{'':>9}" for count in CONNECTIONS
    )
    cpu_us = "".join(f"{statistics.median(row.cpu_us[count]):>9,.0f}" for count in CONNECTIONS)
    return f"{rps}  {p50_ms:>7.2f}  {row.resident_mb:>8.0f}  {ratios}  {cpu_us}"


def _rps(cell: Sequence[Figures]) -> float:
    return max(figures.rps for figures in cell)

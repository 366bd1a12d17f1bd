"""The table of one model: a row for each server, with its figures or with the reason why it has none. Called by the runner."""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from tests.bench.cell import CONNECTIONS, Figures

BASE = "gateway"
REASON_CHARS = 180  # pip lists every version that it did not want


class Row(msgspec.Struct):
    """One server. `cells` has by connections the figures of each round, in the order of the rounds."""

    name: str
    cells: dict[int, list[Figures]] = msgspec.field(default_factory=dict)
    resident_mb: float = 0.0
    missing: str = ""

    def add(self, connections: int, figures: Figures) -> None:
        self.cells.setdefault(connections, []).append(figures)


def render(rows: Sequence[Row]) -> str:
    """The best round of each cell, and ratios of those: other work on the machine only ever slows a server down."""
    counts = "".join(f"{count:>9}" for count in CONNECTIONS)
    width = max(len(row.name) for row in rows)
    head = f"{'':<{width}}  {'req/s at c=':<{9 * len(CONNECTIONS)}}  p50 ms  resident  {BASE} / this at c="
    base = next((row.cells for row in rows if row.name == BASE and not row.missing), {})
    lines = [head, f"{'server':<{width}}  {counts}     c=1        MB  {counts}"]
    return "\n".join(lines + [f"{row.name:<{width}}  {_line(row, base)}".rstrip() for row in rows])


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
    ratios = "".join(f"{_rps(base[count]) / _rps(row.cells[count]):>9.2f}" for count in CONNECTIONS if base)
    return f"{rps}  {p50_ms:>6.2f}  {row.resident_mb:>8.0f}  {ratios}"


def _rps(cell: Sequence[Figures]) -> float:
    return max(figures.rps for figures in cell)

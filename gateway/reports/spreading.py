"""Moves what nobody owns (idle, boot, overhead) to the models, hour by hour, so that not a pico-dollar is lost or made.

Energy and carbon move with the money, by the very same weights.

direct          nothing moves: shared costs are rows without a model
full            all shared costs of an hour go to what was posted to models in it, in proportion
idle-to-cause   idle, boot, drain and unattributed time goes by the memory that models held: what is kept warm keeps the container
                up. The ledger does not know who asked for a minimum of containers. The rest goes as in `full`

A correction that names a model goes to it in every view; it weighs nothing, for it may be below zero.

An hour without any model's cost is split by the whole period's weights. Without any model nothing can move.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from gateway.accounting import footprint
from gateway.accounting.split import apportion_signed
from gateway.contract.corrections import ACCOUNT
from gateway.contract.energy import NOTHING
from gateway.reports.cells import Cell
from gateway.reports.query import View

CAUSED = frozenset({"idle_cpu", "idle_mem", "boot", "drain", "unattributed"})

Key = tuple[str, int, str, str]
"""Model, version, tenant, outcome."""
Weights = Mapping[Key, int]


def spread(cells: Iterable[Cell], view: View) -> list[Cell]:
    """The same money in every hour and activity, with new cells for the parts that moved."""
    cells = list(cells)
    owned = [cell for cell in cells if cell.is_owned]
    if view == "direct" or not owned:
        return cells
    by_cost, by_memory = _Weights(owned, "cost"), _Weights(owned, "memory")
    moved = list(owned)
    owners = {(cell.model, cell.version) for cell in owned}
    for cell in cells:
        if cell.is_owned:
            continue
        if cell.activity == ACCOUNT and (cell.model, cell.version) in owners:
            moved.append(msgspec.structs.replace(cell, own_picousd=0, shared_picousd=cell.own_picousd))
            continue
        is_caused = view == "idle-to-cause" and cell.activity in CAUSED
        weights = (is_caused and by_memory.of(cell.hour_ns)) or by_cost.of(cell.hour_ns) or by_cost.whole()
        moved += _parts(cell, weights)
    return moved


def _parts(cell: Cell, weights: Weights) -> list[Cell]:
    """The cell without its money (what it counts stays where it was counted), and where that went."""
    by = list(weights.values())
    parts = apportion_signed(cell.own_picousd, by)
    footprints = [None] * len(by) if cell.footprint is None else footprint.share(cell.footprint, by)
    counts = Cell(
        *(cell.hour_ns, cell.model, cell.version, cell.tenant, cell.outcome, cell.activity),
        requests=cell.requests,
        not_ok=cell.not_ok,
        rows=cell.rows,
        cpu_ns=cell.cpu_ns,
        memory_byte_ns=cell.memory_byte_ns,
        boots=cell.boots,
        footprint=None if cell.footprint is None else NOTHING,
    )
    return [counts] + [
        Cell(cell.hour_ns, *key, cell.activity, shared_picousd=part, footprint=took)
        for key, part, took in zip(weights, parts, footprints, strict=True)
        if part or took not in {None, NOTHING}
    ]


class _Weights:
    """How much each key has in an hour, of money or of memory."""

    def __init__(self, owned: Iterable[Cell], kind: Literal["cost", "memory"]) -> None:
        self._hours: dict[int, dict[Key, int]] = defaultdict(lambda: defaultdict(int))
        self._whole: dict[Key, int] = defaultdict(int)
        for cell in owned:
            key = (cell.model, cell.version, cell.tenant, cell.outcome)
            weight = cell.own_picousd if kind == "cost" else cell.memory_byte_ns * (cell.activity == "resident")
            self._hours[cell.hour_ns][key] += weight
            self._whole[key] += weight

    def of(self, hour_ns: int) -> Weights:
        """Empty when there is none in this hour."""
        return {key: weight for key, weight in self._hours.get(hour_ns, {}).items() if weight}

    def whole(self) -> Weights:
        """Of the period; evenly when nobody has any."""
        found = {key: weight for key, weight in self._whole.items() if weight}
        return found or dict.fromkeys(self._whole, 1)


def shared_by_version(cells: Iterable[Cell]) -> dict[tuple[str, int], int]:
    """What `full` moves to each model version."""
    parts: dict[tuple[str, int], int] = defaultdict(int)
    for cell in spread(cells, "full"):
        parts[cell.model, cell.version] += cell.shared_picousd
    return parts

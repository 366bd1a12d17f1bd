"""Moves what nobody owns (idle, boot, overhead) to the models, hour by hour, so that not a pico-dollar is lost or made.

Energy and carbon move with the money, by the very same weights (`gateway.reports.powered` asks `Moving`).

direct          nothing moves: shared costs are rows without a model
full            all shared costs of an hour go to what was posted to models in it, in proportion
idle-to-cause   idle, boot, drain and unattributed time goes by the memory that models held: what is kept warm keeps the container
                up. The ledger does not know who asked for a minimum of containers. The rest goes as in `full`

A correction that names a model goes to it in every view; it weighs nothing, for it may be below zero.

An hour without any model's cost is split by the whole period's weights. Without any model nothing can move.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal

import msgspec

from gateway.accounting.split import apportion_signed
from gateway.contract.corrections import ACCOUNT
from gateway.reports.cells import Cell
from gateway.reports.query import View

CAUSED = frozenset({"idle_cpu", "idle_mem", "boot", "drain", "unattributed"})

Key = tuple[str, int, str, str]
"""Model, version, tenant, outcome."""
Weights = Mapping[Key, int]


class Moving:
    """Where under a view goes what nobody owns."""

    def __init__(self, cells: Iterable[Cell], view: View) -> None:
        owned = [] if view == "direct" else [cell for cell in cells if cell.is_owned]
        self.is_any = bool(owned)
        """Whether anything moves: not without owners."""
        self._is_by_memory = view == "idle-to-cause"
        self._by_cost, self._by_memory = _Weights(owned, "cost"), _Weights(owned, "memory")

    def of(self, hour_ns: int, activity: str) -> Weights:
        """For what was posted so in that hour. The same object for whatever moves alike."""
        is_caused = self._is_by_memory and activity in CAUSED
        return (
            (is_caused and self._by_memory.of(hour_ns)) or self._by_cost.of(hour_ns) or self._by_cost.whole  # in order
        )


def spread(cells: Iterable[Cell], view: View) -> list[Cell]:
    """The same money in every hour and activity, with new cells for the parts that moved."""
    cells = list(cells)
    moving = Moving(cells, view)
    if not moving.is_any:
        return cells
    moved = [cell for cell in cells if cell.is_owned]
    owners = {(cell.model, cell.version) for cell in moved}
    for cell in cells:
        if cell.is_owned:
            continue
        if cell.activity == ACCOUNT and (cell.model, cell.version) in owners:
            moved.append(msgspec.structs.replace(cell, own_picousd=0, shared_picousd=cell.own_picousd))
            continue
        moved += _parts(cell, moving.of(cell.hour_ns, cell.activity))
    return moved


def _parts(cell: Cell, weights: Weights) -> list[Cell]:
    """The cell without its money (what it counts stays where it was counted), and where that went."""
    parts = apportion_signed(cell.own_picousd, [*weights.values()])
    counts = msgspec.structs.replace(cell, own_picousd=0, shared_picousd=0, loads=0)
    return [counts] + [
        Cell(cell.hour_ns, *key, cell.activity, shared_picousd=part)
        for key, part in zip(weights, parts, strict=True)
        if part
    ]


class _Weights:
    """How much each key has in an hour, of money or of memory."""

    def __init__(self, owned: Iterable[Cell], kind: Literal["cost", "memory"]) -> None:
        self._hours: dict[int, dict[Key, int]] = defaultdict(lambda: defaultdict(int))
        self._whole: dict[Key, int] = defaultdict(int)
        self._positive: dict[int, Weights] = {}
        for cell in owned:
            key = (cell.model, cell.version, cell.tenant, cell.outcome)
            weight = cell.own_picousd if kind == "cost" else cell.memory_byte_ns * (cell.activity == "resident")
            self._hours[cell.hour_ns][key] += weight
            self._whole[key] += weight

    def of(self, hour_ns: int) -> Weights:
        """Empty when there is none in this hour."""
        if hour_ns not in self._positive:
            self._positive[hour_ns] = {key: weight for key, weight in self._hours.get(hour_ns, {}).items() if weight}
        return self._positive[hour_ns]

    @cached_property
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

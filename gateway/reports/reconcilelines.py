"""One resource in one stretch of hours: what the bill, the ledger and earlier corrections have of each sku, and why they differ.

Pure. Skus are matched by id, else by what they measure: vCPU, memory, a machine as a whole. What the ledger charges nothing for is
one line. `gateway.reports.reconcileresources` makes the stretches.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal

import msgspec

from gateway.contract.corrections import REASONS, Reason
from gateway.contract.prices import BYTES_PER_GB
from gateway.contract.words import HOUR_NS
from gateway.reports.bills import Row
from gateway.reports.reconcilefacts import Earlier, Held

Kind = Literal["vcpu", "memory", "machine", "other"]
_KIND_OF: dict[str, Kind] = {"milli-vcpu-ns": "vcpu", "byte-ns": "memory"}
_PER_UNIT: dict[Kind, int] = {"vcpu": 1000, "memory": BYTES_PER_GB, "machine": 1}
"""The ledger's integers of a vCPU, a GB, a machine for a nanosecond."""
_USED = {"", "usage", "discountedusage", "savingsplancoveredusage"}
"""Categories whose quantity counts: a credit for an hour is not another hour."""


class Part(msgspec.Struct, frozen=True):
    """What one reason explains of a difference."""

    reason: Reason
    cost_picousd: int


class Line(msgspec.Struct, frozen=True):
    """One resource's sku in [from_ns, to_ns), whole hours. `difference` is the bill less what the ledger and corrections have.

    The parts add up to `difference`. `skus` are the ledger's; none where it has no charge for it, then `sku` is the bill's word.
    """

    resource: str
    container: str
    service: str
    sku: str
    skus: tuple[str, ...]
    from_ns: int
    to_ns: int
    ledger_picousd: int
    corrected_picousd: int
    bill_picousd: int
    difference_picousd: int
    parts: tuple[Part, ...]
    postable: bool = True


class Owner(msgspec.Struct):
    """A resource of the bill, or a container of the ledger under all the names that the bill has for it."""

    container: str
    rows: list[Row]

    @property
    def names(self) -> set[str]:
        return {row.resource for row in self.rows}


class Stretch:
    """What bill, ledger and earlier corrections have of one owner in one stretch of time, by what is measured."""

    def __init__(
        self, owner: Owner, rows: list[Row], held: list[Held], before: list[Earlier], from_ns: int, to_ns: int
    ) -> None:
        self._owner = owner
        self._span = (from_ns, to_ns)
        self._before = before
        kinds = {one.sku: _KIND_OF[one.unit] for one in held}
        guessed = [(row, self._kind(row, kinds)) for row in rows]
        is_machine = any(kind == "machine" for _, kind in guessed)
        self._kinds = dict.fromkeys(kinds, "machine") if is_machine else kinds
        self._rows: dict[str, list[Row]] = defaultdict(list)
        for row, kind in guessed:
            self._rows["machine" if is_machine and kind != "other" else kind].append(row)
        self._held: dict[str, list[Held]] = defaultdict(list)
        for one in held:
            self._held[self._kinds[one.sku]].append(one)

    @staticmethod
    def _kind(row: Row, kinds: dict[str, Kind]) -> Kind:
        """What a row of the bill pays for, as far as the ledger charges for it too."""
        if row.sku in kinds:
            return kinds[row.sku]
        text = f"{row.sku} {row.meter} {row.unit}".lower()
        is_there = set(kinds.values())
        if re.search(r"boxusage|spotusage|instance", text) and is_there == {"vcpu", "memory"}:
            return "machine"
        if re.search(r"vcpu(?!credit)|core-?hours|core-?seconds", text) and "vcpu" in is_there:
            return "vcpu"
        if (
            re.search(r"storage|transfer|bytes-", text) is None
            and re.search(r"\bgb-?hours|memory", text)
            and "memory" in is_there
        ):
            return "memory"
        return "other"

    def lines(self, *, postable: bool) -> Iterator[Line]:
        """One for each sku, or machine, that any of the three has; the rest of the bill's skus are one line."""
        corrected: dict[str, dict[Reason, int]] = defaultdict(lambda: dict.fromkeys(REASONS, 0))
        for one in self._before:
            corrected[self._kinds.get(one.entry.sku, "other")][one.reason] += one.entry.cost_picousd
        for kind in sorted({*self._rows, *self._held, *corrected}):
            yield self._line(kind, corrected[kind], postable=postable)

    def _line(self, kind: str, corrected: dict[Reason, int], *, postable: bool) -> Line:
        rows, held = self._rows[kind], self._held[kind]
        skus = tuple(sorted({one.sku for one in held}))
        billed, charged = (sum(one.cost_picousd for one in side) for side in (rows, held))
        before = sum(corrected.values())
        difference = billed - charged - before
        whole = self._explained(kind, billed, charged)
        parts = [Part(reason, whole[reason] - corrected[reason]) for reason in REASONS] if difference else []
        service = next((row.service for row in (*rows, *self._owner.rows) if row.service), "")
        return Line(
            resource=min(row.resource for row in self._owner.rows),
            container=self._owner.container,
            service=service,
            sku=skus[0] if len(skus) == 1 else self._label(rows, skus),
            skus=skus,
            from_ns=self._span[0],
            to_ns=self._span[1],
            ledger_picousd=charged,
            corrected_picousd=before,
            bill_picousd=billed,
            difference_picousd=difference,
            parts=tuple(part for part in parts if part.cost_picousd),
            postable=postable,
        )

    def _label(self, rows: Sequence[Row], skus: Sequence[str]) -> str:
        named = sorted({row.sku or row.meter for row in rows} - {""})
        return named[0] if named else "+".join(skus) or "unknown"

    def _explained(self, kind: str, billed: int, charged: int) -> dict[Reason, int]:
        """All that the bill has beyond the ledger, by reason: more of it at the ledger's price, the rest another price."""
        if not self._held[kind]:
            return {"quantity": 0, "price": 0, "unobserved": billed}
        quantity = _billed_quantity(self._rows[kind], kind)
        held = self._held[kind]
        had = sum(one.quantity for one in held)
        if kind == "machine":
            had = sum(one.length_ns for one in held if _KIND_OF[one.unit] == "vcpu")
        more = 0 if quantity is None or not had else round((quantity - had) * charged / had)
        return {"quantity": more, "price": billed - charged - more, "unobserved": 0}


def _billed_quantity(rows: Sequence[Row], kind: str) -> Fraction | None:
    """In the ledger's integers; 0 when the bill has no row, None when its rows do not say."""
    if not rows:
        return Fraction(0)
    found = [
        row.quantity * per
        for row in rows
        if row.category.lower() in _USED
        and row.cost_picousd >= 0
        and row.quantity is not None
        and (per := _per_unit(row.unit, kind))
    ]
    return sum(found, Fraction(0)) if found else None


def _per_unit(unit: str, kind: str) -> int:
    """0 for a unit that is not understood: then a difference is told as one of price."""
    word = re.sub(r"[^a-z]", "", unit.lower())
    amount = _PER_UNIT[kind]  # type: ignore[index] # only kinds that the ledger holds are asked for
    if re.search(r"(hours?|hrs?)$", word):
        return amount * HOUR_NS
    return amount * 10**9 if re.search(r"(seconds?|secs?)$", word) else 0

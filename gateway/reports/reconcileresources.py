"""A bill against the ledger by resource: how far apart they are, in which sku and hours, and why. Pure; it posts nothing.

A bill's resource is a container of the ledger when its id, or the last part of it (a task's ARN ends with the task's id), is the
container's. For the hours in which a bill names a resource it is taken to say all that the provider charges for it, so that ledger
and corrections together become the bill's sum exactly. Skus are matched by id, else by what they measure: vCPU, memory, a machine.
"""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Literal

import msgspec

from gateway.contract.corrections import REASONS, Reason
from gateway.contract.prices import BYTES_PER_GB
from gateway.errors import InvalidInput
from gateway.reports.bills import Bill, Flag, Row
from gateway.reports.figures import dollars
from gateway.reports.reconcilefacts import HOUR_NS, Earlier, Facts, Held, within

GRACE_NS = 15 * 60 * 10**9
"""After an hour's end its segments come within seconds, and later only after an outage (as for compaction)."""
NAMES_MAX = 5  # in a message

Kind = Literal["vcpu", "memory", "machine", "other"]
_KIND_OF: dict[str, Kind] = {"milli-vcpu-ns": "vcpu", "byte-ns": "memory"}
_PER_UNIT: dict[Kind, int] = {"vcpu": 1000, "memory": BYTES_PER_GB, "machine": 1}
"""The ledger's integers of a vCPU, a GB, a machine for a nanosecond."""
Named = Mapping[str, Mapping[int, Sequence[Earlier]]]
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


class ByResource(msgspec.Struct, frozen=True):
    """All lines of the bill's resources that were asked for. `generation` is that of what was posted: None when nothing was to
    be, 0 when nothing had to be. `posted` is what it came to, by reason.
    """

    shape: str
    resources: int
    lines: tuple[Line, ...]
    ledger_picousd: int
    corrected_picousd: int
    bill_picousd: int
    flags: tuple[Flag, ...]
    generation: int | None = None
    posted: tuple[tuple[Reason, int], ...] = ()
    schema_version: int = 1


class _Owner(msgspec.Struct):
    """A resource of the bill, or a container of the ledger under all the names that the bill has for it."""

    container: str
    rows: list[Row]

    @property
    def names(self) -> set[str]:
        return {row.resource for row in self.rows}


def compare(bill: Bill, facts: Facts, pattern: str | None, *, now_ns: int) -> ByResource:
    """Without a pattern the containers that the ledger knows; with one (`*` and `?`) also other resources whose name fits.

    Raises `InvalidInput` for a bill without resources.
    """
    if not bill.has_resources:
        raise InvalidInput(
            f"bill {bill.name} does not say which resource a row is for, or until when: export it with them"
        )
    if any(row.resource and not row.to_ns for row in bill.rows):
        raise InvalidInput(f"bill {bill.name} has rows for a resource that do not say when their time ends")
    owners, flags = _owners(bill, facts, pattern)
    earlier = facts.earlier()
    lines = tuple(line for owner in owners for line in _lines(owner, bill, facts, earlier, now_ns))
    return ByResource(
        bill.shape,
        len(owners),
        lines,
        sum(line.ledger_picousd for line in lines),
        sum(line.corrected_picousd for line in lines),
        sum(line.bill_picousd for line in lines),
        (*bill.flags, *flags, *_waiting(lines, now_ns), *_not_on_bill(bill, facts, owners, pattern)),
    )


def container_of(resource: str, known: Iterable[str] | dict[str, object]) -> str:
    """The ledger's container that a bill names so, "" for none."""
    return next((name for name in (resource, re.split(r"[/:]", resource)[-1]) if name and name in known), "")


def _owners(bill: Bill, facts: Facts, pattern: str | None) -> tuple[list[_Owner], list[Flag]]:
    found: dict[tuple[str, str], _Owner] = {}
    left: dict[str, int] = defaultdict(int)
    unnamed = 0
    for row in bill.rows:
        container = container_of(row.resource, facts.held)
        if not row.resource:
            unnamed += row.cost_picousd
        elif (pattern is None and container) or (pattern is not None and _fits(pattern, row.resource, container)):
            key = (container, "") if container else ("", row.resource)
            found.setdefault(key, _Owner(container, [])).rows.append(row)
        elif pattern is None:
            left[row.resource] += row.cost_picousd
    flags = []
    if unnamed:
        flags.append(Flag("no_resource", f"{dollars(unnamed)} of the bill name no resource and are not compared"))
    if left:
        text = f"{dollars(sum(left.values()))} are for {_some(left)}, which the ledger does not know; --resource names them"
        flags.append(Flag("not_in_ledger", text))
    return [found[key] for key in sorted(found)], flags


def _fits(pattern: str, resource: str, container: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (resource, container) if name)


def _some(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - NAMES_MAX:,} more" if len(known) > NAMES_MAX else ""
    return f"{', '.join(known[:NAMES_MAX])}{more}"


def _waiting(lines: Sequence[Line], now_ns: int) -> Iterator[Flag]:
    if any(line.to_ns > now_ns - GRACE_NS for line in lines):
        yield Flag("not_over", "the bill has hours that are not over, or have just ended: of these nothing is posted")
    if left := {
        line.resource for line in lines if line.parts and not line.postable and line.to_ns <= now_ns - GRACE_NS
    }:
        yield Flag("superseded", f"another bill was posted after this one for {_some(left)}: it holds")


def _not_on_bill(bill: Bill, facts: Facts, owners: Sequence[_Owner], pattern: str | None) -> Iterator[Flag]:
    from_ns = min(row.from_ns for row in bill.rows) // HOUR_NS * HOUR_NS
    to_ns = max(row.to_ns for row in bill.rows)
    there = {owner.container for owner in owners}
    costs = {
        name: sum(one.cost_picousd for one in within(held, from_ns, to_ns))
        for name, held in facts.held.items()
        if name not in there and (pattern is None or fnmatch.fnmatchcase(name, pattern))
    }
    if missing := {name for name, cost in costs.items() if cost}:
        text = f"{dollars(sum(costs.values()))} in the ledger are of {_some(missing)}, which the bill does not name"
        yield Flag("not_on_bill", text)


def _lines(owner: _Owner, bill: Bill, facts: Facts, earlier: Named, now_ns: int) -> Iterator[Line]:
    posted = facts.generation_of(bill.sha256)
    for from_ns, to_ns, rows in _stretches(owner.rows):
        held = within(facts.held.get(owner.container, {}), from_ns, to_ns)
        # Under several names of the owner, perhaps: each once.
        names = {owner.container, *owner.names} - {""}
        there = {id(one): one for name in sorted(names) for one in within(earlier.get(name, {}), from_ns, to_ns)}
        before = list(there.values())
        is_newer = any(one.generation > posted and one.bill_sha256 != bill.sha256 for one in before)
        postable = to_ns <= now_ns - GRACE_NS and not (posted and is_newer)
        yield from _Stretch(owner, rows, held, before, from_ns, to_ns).lines(postable=postable)


def _stretches(rows: Iterable[Row]) -> Iterator[tuple[int, int, list[Row]]]:
    """Whole hours; rows whose hours overlap belong together."""
    open_ns, end_ns, found = 0, -1, list[Row]()
    for row in sorted(rows, key=lambda row: (row.from_ns, row.to_ns)):
        from_ns, to_ns = row.from_ns // HOUR_NS * HOUR_NS, -(-row.to_ns // HOUR_NS) * HOUR_NS
        if found and from_ns >= end_ns:
            yield open_ns, end_ns, found
            found = []
        if not found:
            open_ns, end_ns = from_ns, to_ns
        end_ns = max(end_ns, to_ns)
        found.append(row)
    if found:
        yield open_ns, end_ns, found


class _Stretch:
    """What bill, ledger and earlier corrections have of one owner in one stretch of time, by what is measured."""

    def __init__(
        self, owner: _Owner, rows: list[Row], held: list[Held], before: list[Earlier], from_ns: int, to_ns: int
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

"""A bill against the ledger by resource: how far apart they are, in which sku and hours, and why. Pure; it posts nothing.

A bill's resource is a container of the ledger when the container recorded that name, or when its id, or the last part of it (a
task's ARN ends with the task's id), is the container's. For the hours in which a bill names a resource it is taken to say all that
the provider charges for it, so that ledger and corrections together become the bill's sum exactly.
"""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from gateway.contract.corrections import Reason
from gateway.contract.words import HOUR_NS
from gateway.errors import InvalidInput
from gateway.reports import reconcilegap
from gateway.reports.bills import Bill, Flag, Row
from gateway.reports.figures import dollars
from gateway.reports.reconcilefacts import Earlier, Facts, within
from gateway.reports.reconcilegap import Gap
from gateway.reports.reconcilelines import Line, Owner, Stretch

GRACE_NS = 15 * 60 * 10**9
"""After an hour's end its segments come within seconds, and later only after an outage (as for compaction)."""
NAMES_MAX = 5  # in a message

Named = Mapping[str, Mapping[int, Sequence[Earlier]]]


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
    gap: Gap | None = None
    schema_version: int = 1


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
    ledger, corrected, billed = (
        sum(getattr(line, f"{side}_picousd") for line in lines) for side in ("ledger", "corrected", "bill")
    )
    hours = (
        (hour_ns, one.cost_picousd)
        for by_hour in facts.held.values()
        for hour_ns in by_hour
        for one in by_hour[hour_ns]
    )
    return ByResource(
        bill.shape,
        len(owners),
        lines,
        ledger,
        corrected,
        billed,
        (*bill.flags, *flags, *_waiting(lines, now_ns), *_not_on_bill(bill, facts, owners, pattern)),
        gap=reconcilegap.gap(bill.rows, ledger + corrected, billed, hours, now_ns),
    )


def container_of(
    resource: str, known: Iterable[str] | dict[str, object], containers: Mapping[str, str] | None = None
) -> str:
    """The ledger's container that a bill names so, "" for none. `containers` are known by their resource."""
    names = (resource, (containers or {}).get(resource, ""), re.split(r"[/:]", resource)[-1])
    return next((name for name in names if name and name in known), "")


def _owners(bill: Bill, facts: Facts, pattern: str | None) -> tuple[list[Owner], list[Flag]]:
    found: dict[tuple[str, str], Owner] = {}
    left: dict[str, int] = defaultdict(int)
    unnamed = 0
    for row in bill.rows:
        container = container_of(row.resource, facts.held, facts.containers)
        if not row.resource:
            unnamed += row.cost_picousd
        elif (pattern is None and container) or (pattern is not None and _fits(pattern, row.resource, container)):
            key = (container, "") if container else ("", row.resource)
            found.setdefault(key, Owner(container, [])).rows.append(row)
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


def _not_on_bill(bill: Bill, facts: Facts, owners: Sequence[Owner], pattern: str | None) -> Iterator[Flag]:
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


def _lines(owner: Owner, bill: Bill, facts: Facts, earlier: Named, now_ns: int) -> Iterator[Line]:
    posted = facts.generation_of(bill.sha256)
    for from_ns, to_ns, rows in _stretches(owner.rows):
        held = within(facts.held.get(owner.container, {}), from_ns, to_ns)
        # Under several names of the owner, perhaps: each once.
        names = {owner.container, *owner.names} - {""}
        there = {id(one): one for name in sorted(names) for one in within(earlier.get(name, {}), from_ns, to_ns)}
        before = list(there.values())
        is_newer = any(one.generation > posted and one.bill_sha256 != bill.sha256 for one in before)
        postable = to_ns <= now_ns - GRACE_NS and not (posted and is_newer)
        yield from Stretch(owner, rows, held, before, from_ns, to_ns).lines(postable=postable)


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

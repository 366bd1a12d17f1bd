"""Posts what a bill says differently as corrections: `steelyard costs reconcile BILL --post` (infra/decisions/0015).

A posting is one object under the next number, put if absent: it is there whole or not at all, and whoever loses the race for a
number looks again at what the winner corrected. The same bill posted twice finds nothing to correct; a different bill for the same
hours finds the difference to what was corrected so far.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from gateway.accounting.split import apportion_signed
from gateway.contract import codec, layout
from gateway.contract.corrections import REASONS, Correction, Entry, Posted, Reason, identity
from gateway.errors import InvalidInput, PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import bills, corrections, reconcilefacts, reconcileresources, tables
from gateway.reports.bills import Bill
from gateway.reports.reconcilefacts import PLATFORM, Facts, Held, User, within
from gateway.reports.reconcilelines import Line, Part
from gateway.reports.reconcileresources import ByResource
from gateway.reports.sync import LocalLedger, sync

CLAIMS_MAX = 5
"""Two people who post at once meet again at most once; more than this is somebody's loop."""
ENTRIES_MAX = 500_000
"""Of one posting: some 100 MB of JSON, which every report reads. A bill of a month has 720 hours for each container."""

Place = tuple[int, str]
"""Hour and sku."""
Same = tuple[int, int, str, str, Reason]
"""Time, resource, sku and reason."""


class Author(msgspec.Struct, frozen=True):
    """Who posts, and when."""

    actor: str
    now_ns: int


async def read(store: ObjectStore, folder: Path, path: Path, pattern: str | None, *, now_ns: int) -> ByResource:
    """The comparison alone. Raises `InvalidInput` for the bill, and as `sync` and `tables.opened` do."""
    bill = await asyncio.to_thread(bills.read, path)
    facts = await asyncio.to_thread(_facts, await sync(store, folder))
    return await asyncio.to_thread(reconcileresources.compare, bill, facts, pattern, now_ns=now_ns)


async def post(
    store: ObjectStore, folder: Path, path: Path, pattern: str | None, author: Author, *, accept_repeated: bool = False
) -> ByResource:
    """Compare, and write what differs. The comparison returned is that of before.

    Raises as `read`, `InvalidInput` also for a bill with repeated rows unless they are accepted, and `PreconditionFailed` when
    others keep posting.
    """
    bill = await asyncio.to_thread(bills.read, path)
    if bill.repeated and not accept_repeated:
        raise InvalidInput(
            f"bill {path}: {bills.rows_that_repeat(bill.repeated)} another one in every column: a file joined twice "
            "would be charged twice. Look at them; --accept-repeated posts them as they are"
        )
    facts = await asyncio.to_thread(_facts, await sync(store, folder, is_whole=True))
    for _ in range(CLAIMS_MAX):
        facts = msgspec.structs.replace(facts, postings=await _postings(store))
        found = await asyncio.to_thread(reconcileresources.compare, bill, facts, pattern, now_ns=author.now_ns)
        posted = await asyncio.to_thread(prepared, bill, facts, found.lines, author)
        if posted is None:
            return msgspec.structs.replace(found, generation=0)
        if await _claimed(store, posted):
            return msgspec.structs.replace(found, generation=posted.generation, posted=_by_reason(posted))
    raise PreconditionFailed(f"{layout.CORRECTIONS} was written by others {CLAIMS_MAX} times meanwhile; run this again")


def prepared(bill: Bill, facts: Facts, lines: Sequence[Line], author: Author) -> Posted | None:
    """The posting that makes these lines agree, as far as they may be posted. None when there is nothing to write.

    A bill that agrees from the start is recorded too: a later one is then known to be newer. Raises `InvalidInput` when too large.
    """
    # How often this bill corrected the same before: a late segment made it differ again.
    again: Counter[Same] = Counter(
        (old.from_ns, old.to_ns, old.resource, old.sku, old.reason)
        for posted in facts.postings
        if posted.bill_sha256 == bill.sha256
        for old in posted.corrections
    )
    told = [
        correction
        for line in lines
        if line.postable
        for part in line.parts
        if (correction := _correction(bill, facts, line, part, again)).entries
    ]
    if not told and (any(line.parts for line in lines) or facts.generation_of(bill.sha256)):
        return None
    entries = sum(len(correction.entries) for correction in told)
    if entries > ENTRIES_MAX:
        raise InvalidInput(
            f"this bill makes {entries:,} entries, at most {ENTRIES_MAX:,} are posted at once; post a part with --resource"
        )
    last = facts.postings[-1] if facts.postings else None
    return Posted(
        generation=last.generation + 1 if last else 1,
        previous_sha256=codec.sha256(codec.encode(last)) if last else "",
        bill_sha256=bill.sha256,
        bill_name=bill.name,
        posted_ns=author.now_ns,
        actor=author.actor,
        cost_picousd=sum(correction.cost_picousd for correction in told),
        corrections=tuple(told),
    )


def _correction(bill: Bill, facts: Facts, line: Line, part: Part, again: Counter[Same]) -> Correction:
    """`bill/<sku>` on one side, the account `correction` on the other."""
    made = Correction(
        id="0" * 64,
        reason=part.reason,
        resource=line.resource,
        container=line.container,
        service=line.service,
        sku=line.sku,
        from_ns=line.from_ns,
        to_ns=line.to_ns,
        ledger_picousd=line.ledger_picousd,
        corrected_picousd=line.corrected_picousd,
        bill_picousd=line.bill_picousd,
        cost_picousd=part.cost_picousd,
        entries=tuple(_entries(facts, line, part.cost_picousd)),
        ordinal=again[line.from_ns, line.to_ns, line.resource, line.sku, part.reason],
    )
    return msgspec.structs.replace(made, id=identity(bill.sha256, made))


def _entries(facts: Facts, line: Line, cost_picousd: int) -> Iterator[Entry]:
    """By hour and sku as the ledger charged; in each hour by model as its requests cost directly, to the platform without any."""
    places = _places(facts, line)
    parts = apportion_signed(cost_picousd, list(places.values()))
    for (hour_ns, sku), part in zip(places, parts, strict=True):
        users: dict[User, int] = dict(facts.traffic.get((line.container, hour_ns), {})) or {PLATFORM: 1}
        for user, share in zip(users, apportion_signed(part, list(users.values())), strict=True):
            if share:
                yield Entry(hour_ns, sku, share, *user)


def _places(facts: Facts, line: Line) -> dict[Place, int]:
    """Weights. What the ledger has no charge for follows the container's other charges, or stands in the first hour."""
    there = within(facts.held.get(line.container, {}), line.from_ns, line.to_ns)
    mine = [held for held in there if held.sku in line.skus]
    for measured in ("cost_picousd", "quantity"):
        weights: dict[Place, int] = defaultdict(int)
        for held in mine or there:
            weights[held.hour_ns, held.sku if mine else line.sku] += _weight(held, measured, is_mixed=not mine)
        if any(weights.values()):
            return weights
    return {(line.from_ns, line.skus[0] if line.skus else line.sku): 1}


def _weight(held: Held, measured: str, *, is_mixed: bool) -> int:
    """Quantities of different units cannot be added: then time counts."""
    if measured == "cost_picousd":
        return held.cost_picousd
    return held.length_ns if is_mixed else held.quantity


def _by_reason(posted: Posted) -> tuple[tuple[Reason, int], ...]:
    sums = {
        reason: sum(line.cost_picousd for line in posted.corrections if line.reason == reason) for reason in REASONS
    }
    return tuple((reason, cost) for reason, cost in sums.items() if cost)


async def _postings(store: ObjectStore) -> tuple[Posted, ...]:
    """From the store itself: what another posted a second ago counts."""
    keys = [info.key async for info in store.list(layout.CORRECTIONS)]
    found = [corrections.parsed(key, (await store.get(key)).body) for key in sorted(keys)]
    return tuple(sorted(found, key=lambda posted: posted.generation))


async def _claimed(store: ObjectStore, posted: Posted) -> bool:
    """False when another posting has this number. Our own bytes there are an earlier attempt whose answer was lost."""
    key, body = layout.corrections(posted.generation), codec.encode(posted)
    try:
        await store.put_if_absent(key, body)
    except PreconditionFailed:
        return (await store.get(key)).body == body
    return True


def _facts(local: LocalLedger) -> Facts:
    with tables.opened(local) as connection:
        return reconcilefacts.read(connection, corrections.read(local.corrections))

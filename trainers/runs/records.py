"""Opens and ends an attempt at a run: says what was asked, claims the next number, settles who left without a word, and the ledger.

Every write is conditional, so any number of machines may try at once: one number each. Whoever holds a lower number than the
newest is stale and must stop; `heartbeat` notices. Called by `trainers.run`; nothing here knows what training is.
"""

import time
from collections.abc import Callable

import msgspec
from msgspec import UNSET

from gateway.contract import codec, layout
from gateway.contract.prices import PriceBook
from gateway.contract.runs import AttemptEnd, AttemptRecord, Cancellation, Outcome, Progress, RunRecord
from gateway.contract.words import NAME_RULE, is_name
from gateway.errors import PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from gateway.wording import moment
from trainers.errors import Cancelled, SpecError
from trainers.runs import reading, settle
from trainers.runs.machine import Machine, Placement, allotted

ATTEMPTS_MAX = 9999  # keys have four digits, so that they sort
UNKNOWN_SKU = "unknown"
MESSAGE_LENGTH_MAX = 2000  # a sentence, never a log


class Attempt(msgspec.Struct, frozen=True):
    """A claimed attempt and what came before it."""

    run: RunRecord
    record: AttemptRecord
    before: settle.Earlier
    tried: tuple[tuple[AttemptRecord, AttemptEnd], ...]

    @property
    def number(self) -> int:
        return self.record.attempt


async def open_attempt(
    store: ObjectStore,
    run: RunRecord,
    *,
    machine: Machine,
    placement: Placement,
    sku: str,
    book: PriceBook,
    now_ns: Callable[[], int] = time.time_ns,
) -> Attempt:
    """Create the run or find that it is this one, and claim its next attempt. Earlier attempts without an end are settled.

    `sku` is the price book's word for the machine; what `placement` knows about its price comes first. Raises `SpecError` when the
    run id stands for something else or is out of attempts, `Cancelled`.
    """
    await require_same(store, run)
    cancelled = await reading.cancellation(store, run.run_id)
    if cancelled:
        raise Cancelled(_cancelled(cancelled))
    price = book.price(sku)
    usd_per_hour = placement.usd_per_hour or (price.usd if price and price.unit == "hour" else None)
    draft = AttemptRecord(
        run_id=run.run_id,
        attempt=1,
        started_ns=now_ns(),
        cpu=machine.cpu,
        cpus=machine.cpus,
        gpu=machine.gpu,
        gpus=machine.gpus,
        platform=machine.platform,
        job=machine.job,
        job_attempt=machine.job_attempt,
        instance=placement.instance,
        zone=placement.zone,
        market=placement.market,
        sku=sku,
        usd_per_hour=usd_per_hour,
        price_book_sha256=book.sha256,
        allotted=allotted(machine, placement) or UNSET,
    )
    claimed = await _claim(store, draft)
    tried = await settle_attempts(store, run, below=claimed.attempt)
    return Attempt(run, claimed, settle.earlier([end for _, end in tried]), tuple(tried))


async def close_attempt(
    store: ObjectStore,
    attempt: Attempt,
    *,
    outcome: Outcome,
    exit_code: int,
    message: str,
    progress: Progress,
    elapsed_ns: int,
    now_ns: Callable[[], int] = time.time_ns,
) -> AttemptEnd:
    """Record how this attempt ended and what it cost, once. When a later attempt has settled it already, that record stands."""
    ended = settle.end(
        attempt.record,
        attempt.before,
        progress,
        outcome=outcome,
        exit_code=exit_code,
        message=message[:MESSAGE_LENGTH_MAX],
        ended_ns=now_ns(),
        elapsed_ns=elapsed_ns,
    )
    return await _end(store, attempt.run, attempt.record, ended)


async def settle_attempts(
    store: ObjectStore, run: RunRecord, *, below: int = ATTEMPTS_MAX + 1
) -> list[tuple[AttemptRecord, AttemptEnd]]:
    """End and bill every attempt below this number that did not itself, from its last heartbeat. Oldest first.

    Only for attempts that are over or fenced: afterwards their own word comes too late.
    """
    beat = await reading.heartbeat(store, run.run_id)
    settled: list[tuple[AttemptRecord, AttemptEnd]] = []
    for tried in await reading.tried(store, run.run_id):
        record, ended = tried.attempt, tried.end
        if record.attempt >= below:
            break
        if ended is None:
            ended = settle.abandoned(record, settle.earlier([end for _, end in settled]), beat)
        settled.append((record, await _end(store, run, record, ended)))
    return settled


async def require_same(store: ObjectStore, run: RunRecord) -> None:
    """Create `run.json`, or raise `SpecError` naming what differs from the one that is there."""
    if not is_name(run.run_id):
        raise SpecError(f"run id '{run.run_id[:64]}' must be {NAME_RULE}")
    try:
        await store.put_if_absent(layout.run(run.run_id), codec.encode(run))
    except PreconditionFailed:
        stored = await reading.record(store, run.run_id)
        differing = [] if stored is None else _differing(stored, run)
        if differing:
            raise SpecError(
                f"run '{run.run_id}' was made for something else: {'; '.join(differing)}; choose another run id"
            ) from None


async def cancel(store: ObjectStore, cancellation: Cancellation) -> Cancellation:
    """Ask for the run not to go on; the first who asks is who asked. Returns what is stored."""
    try:
        await store.put_if_absent(layout.cancellation(cancellation.run_id), codec.encode(cancellation))
    except PreconditionFailed:
        return await reading.cancellation(store, cancellation.run_id) or cancellation
    return cancellation


async def lift_cancellation(store: ObjectStore, run_id: str) -> None:
    """The run may go on again."""
    await store.delete(layout.cancellation(run_id))


async def _claim(store: ObjectStore, draft: AttemptRecord) -> AttemptRecord:
    """The next free number. Others may take it first: then there is a higher one."""
    number = 1 + max(await reading.numbers(store, draft.run_id), default=0)
    while number <= ATTEMPTS_MAX:
        claim = msgspec.structs.replace(draft, attempt=number)
        try:
            await store.put_if_absent(layout.attempt(draft.run_id, number), codec.encode(claim))
        except PreconditionFailed:
            number += 1
        else:
            return claim
    raise SpecError(f"run '{draft.run_id}' has had {ATTEMPTS_MAX} attempts; choose another run id")


async def _end(store: ObjectStore, run: RunRecord, record: AttemptRecord, ended: AttemptEnd) -> AttemptEnd:
    """The end as stored, and its charge beside the ledger's others: the first record of either stands."""
    try:
        await store.put_if_absent(layout.attempt_end(run.run_id, record.attempt), codec.encode(ended))
    except PreconditionFailed:
        stored = await store.get(layout.attempt_end(run.run_id, record.attempt))
        ended = codec.decode(stored.body, AttemptEnd)
    try:
        charge = codec.encode(settle.charge(run, record, ended))
        await store.put_if_absent(layout.training_charge(run.run_id, record.attempt), charge)
    except PreconditionFailed:
        pass  # made from the same two records, so it says the same
    return ended


def _differing(stored: RunRecord, asked: RunRecord) -> list[str]:
    """`seed was 1, is 2`; parameters one by one; the digest only where nothing else tells."""
    differing = [
        f"{name} was {getattr(stored, name)!r}, is {getattr(asked, name)!r}"
        for name in ("recipe", "model", "seed")
        if getattr(stored, name) != getattr(asked, name)
    ]
    names = sorted(stored.parameters.keys() | asked.parameters.keys())
    values = [(name, stored.parameters.get(name), asked.parameters.get(name)) for name in names]
    differing += [f"parameter {name} was {was!r}, is {now!r}" for name, was, now in values if was != now]
    if not differing and stored.spec_sha256 != asked.spec_sha256:
        differing = [f"its spec had digest {stored.spec_sha256[:12]}, this one has {asked.spec_sha256[:12]}"]
    return differing


def _cancelled(cancellation: Cancellation) -> str:
    reason = f" ({cancellation.reason})" if cancellation.reason else ""
    return (
        f"run '{cancellation.run_id}' was cancelled by {cancellation.actor} at {moment(cancellation.requested_ns)}{reason}; "
        f"take that back with: steelyard runs resume {cancellation.run_id}"
    )

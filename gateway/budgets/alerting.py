"""Sends an alert for each crossed threshold once per period, whoever else checks at the same time, and again only what failed.

The claim is a conditional write in the store (`gateway.contract.budgets.Alert`). A checker that dies between the delivery and its
note leaves a claim whose time runs out, and the next one sends again: receivers know the repetition by the body's `id`.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.budgets import webhook
from gateway.budgets.budgetfile import Webhook
from gateway.budgets.evaluating import Standing, Threshold
from gateway.budgets.webhook import Undelivered
from gateway.contract import codec, layout
from gateway.contract.budgets import Alert
from gateway.errors import ObjectNotFound, PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from gateway.wording import moment, usd

NOTED_WITHIN_NS = 60 * 10**9
"""From the end of a delivery until its note: a conditional write with all retries of a store that is slow."""

REASON_CHARACTERS_MAX = 200


class Outcome(msgspec.Struct, frozen=True):
    """Of one crossed threshold. `told`: it was sent before, or is being sent by somebody else."""

    budget: str
    threshold: str
    state: Literal["sent", "told", "failed"]
    reason: str = ""


async def alert(
    store: ObjectStore, hook: Webhook, secret: bytes | None, standings: Sequence[Standing], now_ns: int
) -> tuple[Outcome, ...]:
    """One after the other. Raises `StoreUnavailable`; then what was not noted is sent again by the next run."""
    return tuple(
        [
            await _one(store, hook, secret, standing, threshold, now_ns)
            for standing in standings
            for threshold in standing.crossed
        ]
    )


async def _one(
    store: ObjectStore, hook: Webhook, secret: bytes | None, standing: Standing, threshold: Threshold, now_ns: int
) -> Outcome:
    key = layout.budget_alert(standing.budget.id, standing.period.key, threshold.id)
    until_ns = now_ns + round(hook.timeout_s * 1e9) + NOTED_WITHIN_NS
    claimed = await _claim(store, key, standing, threshold, (now_ns, until_ns))
    if claimed is None:
        return Outcome(standing.budget.id, threshold.id, "told")
    mine, etag = claimed
    try:
        await webhook.deliver(hook, body(standing, threshold, now_ns), secret, now_ns // 10**9)
    except Undelivered as error:
        reason = str(error)[:REASON_CHARACTERS_MAX]
        failed = msgspec.structs.replace(mine, state="failed", reason=reason)
        await _note(store, key, failed, etag)
        return Outcome(standing.budget.id, threshold.id, "failed", reason)
    await _note(store, key, msgspec.structs.replace(mine, state="sent"), etag)
    return Outcome(standing.budget.id, threshold.id, "sent")


async def _claim(
    store: ObjectStore, key: str, standing: Standing, threshold: Threshold, times: tuple[int, int]
) -> tuple[Alert, str] | None:
    """The right to send it, with the etag to give it back; None when it is not ours to send."""
    now_ns, until_ns = times
    mine = Alert(standing.budget.id, threshold.id, standing.period.from_ns, "sending", 1, now_ns, until_ns)
    try:
        stored = await store.get(key)
    except ObjectNotFound:
        try:
            return mine, await store.put_if_absent(key, codec.encode(mine))
        except PreconditionFailed:
            return None
    before = codec.decode(stored.body, Alert, what=f"alert {key}")
    if before.state == "sent" or (before.state == "sending" and now_ns < before.until_ns):
        return None
    mine = msgspec.structs.replace(mine, attempts=before.attempts + 1)
    try:
        return mine, await store.put_if_match(key, codec.encode(mine), stored.etag)
    except PreconditionFailed:
        return None


async def _note(store: ObjectStore, key: str, state: Alert, etag: str) -> None:
    """If somebody took over meanwhile, the note is theirs to write."""
    try:
        await store.put_if_match(key, codec.encode(state), etag)
    except PreconditionFailed:
        return


class Body(msgspec.Struct, frozen=True):
    """What a receiver gets. Amounts twice: as dollars for people, as exact whole pico-dollars. `share` is spent of limit."""

    id: str
    budget: str
    model: str
    tenant: str
    kind: str
    threshold: str
    period: str
    period_from: str
    period_to: str
    spent_usd: str
    limit_usd: str
    forecast_usd: str
    spent_picousd: int
    limit_picousd: int
    forecast_picousd: int
    share: float
    at: str
    schema_version: int = 1


def body(standing: Standing, threshold: Threshold, now_ns: int) -> bytes:
    """As JSON."""
    budget, limit = standing.budget, standing.budget.limit_picousd
    made = Body(
        id=f"{budget.id}/{standing.period.key}/{threshold.id}",
        budget=budget.id,
        model=budget.model,
        tenant=budget.tenant,
        kind=threshold.kind,
        threshold=threshold.factor,
        period=budget.period,
        period_from=moment(standing.period.from_ns),
        period_to=moment(standing.period.to_ns),
        spent_usd=usd(standing.spent_picousd),
        limit_usd=usd(limit),
        forecast_usd=usd(standing.forecast_picousd),
        spent_picousd=standing.spent_picousd,
        limit_picousd=limit,
        forecast_picousd=standing.forecast_picousd,
        share=round(standing.spent_picousd / limit, 6),
        at=moment(now_ns),
    )
    return msgspec.json.encode(made)

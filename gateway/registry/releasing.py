"""Decides which versions an alias answers with: promote, canary, shadow, rollback. The only writer of log and aliases.

A decision is first a new log entry with the alias's whole state, then the alias object moved by compare-and-swap. A crash between
the two leaves an alias that is behind its log; the next decision, or the same one again, brings it up to date. Called by
`trainers.publish` and the `steelyard models` commands.
"""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from gateway.contract import codec, layout
from gateway.contract.registry import WHOLE_BP, Canary, Promotion, Shadow
from gateway.contract.words import NAME_RULE, is_name
from gateway.errors import InvalidInput, ObjectNotFound, PreconditionFailed, ReleaseConflict
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry, is_number

CLAIMS_MAX = 64
"""Tries for one conditional write. Each lost try means that another writer succeeded, so only a crowd ever gets here."""


class Author(msgspec.Struct, frozen=True):
    """Who decides, why and when; goes into the log as it is."""

    actor: str
    reason: str
    now_ns: int


class Release(msgspec.Struct, frozen=True):
    """What an alias answers with, apart from who decided it and when."""

    version: int
    manifest_sha256: str
    canaries: tuple[Canary, ...] = ()
    shadow: Shadow | None = None


Change = Callable[[Release | None], Release]
"""From what the alias says now (None: it does not exist) to what it shall say. Raises `InvalidInput` when that makes no sense."""


async def promote(
    store: ObjectStore,
    *,
    model: str,
    alias: str,
    version: int,
    author: Author,
    over: Release | UnsetType | None = UNSET,
) -> Promotion:
    """Make `version` the alias's champion; a no-op when it is already. Its own canary or shadow ends, those of others stay.

    `over` is the release that the decision was made against, None where there was none; left out, any will do. Raises
    `ModelNotFound` naming the versions there are, `ReleaseConflict` when another decision about this alias was recorded while this
    one was being made: that one is newer than what the caller looked at.
    """
    check_names(model, alias)
    record = await Registry(store).version(model, version)

    def change(now: Release | None) -> Release:
        if over is not UNSET and now != over and not (now and now.version == version):
            answering = f"version {now.version}" if now else "nothing"
            raise ReleaseConflict(
                f"alias '{alias}' of model '{model}' answers with {answering} meanwhile; compare with that"
            )
        others = tuple(canary for canary in now.canaries if canary.version != version) if now else ()
        shadow = now.shadow if now and now.shadow and now.shadow.version != version else None
        return Release(version, record.manifest_sha256, others, shadow)

    return await _decide(store, model, alias, author, change)


async def canary(
    store: ObjectStore, *, model: str, alias: str, version: int, weight_bp: int, author: Author
) -> Promotion:
    """Let `version` answer `weight_bp` (basis points) of the alias's requests; 0 ends that. Raises as `promote`, and
    `InvalidInput` for a share that does not fit beside those of other canaries.
    """
    check_names(model, alias)
    record = await Registry(store).version(model, version)

    def change(now: Release | None) -> Release:
        now = _require_champion(now, model, alias)
        if now.version == version:
            raise InvalidInput(
                f"version {version} is the champion of '{alias}' already: it answers what canaries leave"
            )
        others = tuple(other for other in now.canaries if other.version != version)
        if not weight_bp:
            return msgspec.structs.replace(now, canaries=others)
        taken = sum(other.weight_bp for other in others)
        if not 0 < weight_bp <= WHOLE_BP - taken:
            raise InvalidInput(
                f"a canary's weight is above 0 % and, beside the other canaries, at most {(WHOLE_BP - taken) / 100:g} %"
            )
        mine = Canary(version=version, manifest_sha256=record.manifest_sha256, weight_bp=weight_bp)
        if len(others) == len(now.canaries):
            return msgspec.structs.replace(now, canaries=(*others, mine))
        # In its place: callers are shared out in this order, and should stay with who answered them.
        kept = tuple(mine if other.version == version else other for other in now.canaries)
        return msgspec.structs.replace(now, canaries=kept)

    return await _decide(store, model, alias, author, change)


async def shadow(
    store: ObjectStore, *, model: str, alias: str, version: int, sample_bp: int, author: Author
) -> Promotion:
    """Run `version` beside the champion on `sample_bp` of its requests, compared and never returned; 0 ends that.

    An alias has one shadow: another version takes its place. Raises as `canary`.
    """
    check_names(model, alias)
    record = await Registry(store).version(model, version)

    def change(now: Release | None) -> Release:
        now = _require_champion(now, model, alias)
        if not sample_bp:
            if now.shadow and now.shadow.version != version:
                raise InvalidInput(f"version {version} is no shadow of '{alias}'; version {now.shadow.version} is")
            return msgspec.structs.replace(now, shadow=None)
        if now.version == version:
            raise InvalidInput(f"version {version} is the champion of '{alias}': there is nothing to compare it with")
        if not 0 < sample_bp <= WHOLE_BP:
            raise InvalidInput("a shadow's sample is above 0 % and at most 100 %")
        mine = Shadow(version=version, manifest_sha256=record.manifest_sha256, sample_bp=sample_bp)
        return msgspec.structs.replace(now, shadow=mine)

    return await _decide(store, model, alias, author, change)


async def rollback(store: ObjectStore, *, model: str, alias: str, author: Author, to: int | None = None) -> Promotion:
    """Restore an earlier state of the alias, canaries and shadow included, as a new decision.

    Without `to` (a generation of this alias) it is the newest earlier state that differs from the present one. A second rollback
    goes on from where the first one arrived, back in time: it never returns to what was just left. Raises `InvalidInput` when
    there is nothing to go back to, and as `promote`.
    """
    check_names(model, alias)
    newest = (await Registry(store).alias(model, alias)).promotion  # or ModelNotFound, naming what there is
    entries = await Registry(store).history(model, alias)
    now = release_of(entries[-1] if entries else newest)
    if to is None:
        before = (entries[-1].restores or entries[-1].generation) if entries else 0
        found = next((e for e in reversed(entries) if e.generation < before and release_of(e) != now), None)
        if found is None:
            raise InvalidInput(f"alias '{alias}' of model '{model}' has no earlier state to go back to")
    else:
        found = next((entry for entry in entries if entry.generation == to), None)
        if found is None:
            known = ", ".join(str(entry.generation) for entry in entries[-20:])
            raise InvalidInput(f"alias '{alias}' of model '{model}' has no generation {to}; its latest: {known}")
    target = release_of(found)

    def change(current: Release | None) -> Release:
        if current != now:
            raise ReleaseConflict(f"alias '{alias}' of model '{model}' changed meanwhile; look at its history again")
        return target

    return await _decide(store, model, alias, author, change, restores=found.generation)


async def repair(store: ObjectStore, *, model: str) -> list[Promotion]:
    """Bring every alias up to the log, as after a crash between the two or a restored bucket that lacks aliases.

    Returns the newest decision about each alias, by name; nothing is decided anew, and an alias that is right is left alone.
    """
    newest = {entry.alias: entry for entry in await Registry(store).history(model)}
    return [await _follow(store, newest[alias]) for alias in sorted(newest)]


def release_of(promotion: Promotion) -> Release:
    return Release(promotion.version, promotion.manifest_sha256, promotion.canaries, promotion.shadow)


class _Log(msgspec.Struct, frozen=True):
    """What the log says: its newest generation, over all aliases, and the newest entry of the one asked for."""

    generation: int
    current: Promotion | None

    @property
    def release(self) -> Release | None:
        return release_of(self.current) if self.current else None


async def _decide(
    store: ObjectStore, model: str, alias: str, author: Author, change: Change, *, restores: int = 0
) -> Promotion:
    """Record what `change` makes of the present state, then bring the alias up to it. The log decides, the alias follows.

    A generation that was taken for another alias, or for the very state we want, is no conflict.
    """
    seen = await _log(store, model, alias)
    for _ in range(CLAIMS_MAX):
        wanted = change(seen.release)
        if seen.current and seen.release == wanted:
            return await _follow(store, seen.current)
        entry = Promotion(
            model=model,
            alias=alias,
            version=wanted.version,
            manifest_sha256=wanted.manifest_sha256,
            generation=seen.generation + 1,
            actor=author.actor,
            reason=author.reason,
            promoted_ns=author.now_ns,
            canaries=wanted.canaries,
            shadow=wanted.shadow,
            restores=restores,
        )
        try:
            await store.put_if_absent(layout.promotion(model, entry.generation), codec.encode(entry))
        except PreconditionFailed:
            before, seen = seen, await _log(store, model, alias)
            _refuse_newer_decision(before, seen, wanted)
        else:
            return await _follow(store, entry)
    raise ReleaseConflict(f"model '{model}': {CLAIMS_MAX} decisions were recorded meanwhile; run again")


async def _log(store: ObjectStore, model: str, alias: str) -> _Log:
    """The log from the alias's own generation on: everything older is known to be superseded."""
    found = await _alias(store, model, alias)
    current = found[0] if found else None
    generation = current.generation if current else 0
    for entry in await Registry(store).history(model, after=generation):
        generation = entry.generation
        current = entry if entry.alias == alias else current
    return _Log(generation, current)


async def _alias(store: ObjectStore, model: str, alias: str) -> tuple[Promotion, str] | None:
    """The alias object and its etag."""
    try:
        stored = await store.get(layout.alias(model, alias))
    except ObjectNotFound:
        return None
    return codec.decode(stored.body, Promotion, what=f"alias '{alias}' of model '{model}'"), stored.etag


async def _follow(store: ObjectStore, entry: Promotion) -> Promotion:
    """Bring the alias up to this log entry. Its generation only grows, so trying again after a lost race is safe."""
    key, data = layout.alias(entry.model, entry.alias), codec.encode(entry)
    for _ in range(CLAIMS_MAX):
        current = await _alias(store, entry.model, entry.alias)
        if current and current[0].generation >= entry.generation:
            return entry
        try:
            await (store.put_if_match(key, data, current[1]) if current else store.put_if_absent(key, data))
        except PreconditionFailed:
            continue
        return entry
    raise ReleaseConflict(
        f"alias '{entry.alias}' of model '{entry.model}' moved {CLAIMS_MAX} times meanwhile; run again"
    )


def _refuse_newer_decision(before: _Log, after: _Log, wanted: Release) -> None:
    newer = after.current
    if newer and after.release not in {before.release, wanted}:
        raise ReleaseConflict(
            f"alias '{newer.alias}' of model '{newer.model}' was given version {newer.version} by {newer.actor} meanwhile; "
            f"compare version {wanted.version} with it and decide again"
        )


def _require_champion(now: Release | None, model: str, alias: str) -> Release:
    if now is None:
        raise InvalidInput(f"alias '{alias}' of model '{model}' has no champion yet; promote a version first")
    return now


def check_names(model: str, alias: str) -> None:
    """Raises `InvalidInput` for what no version can be published or promoted as."""
    for what, name in (("model", model), ("alias", alias)):
        if not is_name(name):
            raise InvalidInput(f"{what} '{name[:64]}' must be {NAME_RULE}")
    if is_number(alias):
        raise InvalidInput(f"alias '{alias}' would hide version {alias}; choose a name that is not a number")

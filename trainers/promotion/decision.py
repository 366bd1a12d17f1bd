"""Whether a run's version takes over: compare it with the champion, record the decision, then move the alias if it says so.

A version that is held back is the end of a successful run. Who loses a race to another publisher looks at the new champion and
decides again. Called by `trainers.run` once the version is published.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.contract import codec, layout, prices
from gateway.contract.manifest import Manifest
from gateway.contract.promotions import Decision, Gate, Verdict
from gateway.contract.registry import Promotion, VersionRecord
from gateway.errors import ArtifactError, ManifestInvalid, ObjectNotFound, PreconditionFailed
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from gateway.registry.reading import Registry
from trainers import publish
from trainers.errors import PublishConflict
from trainers.job import Data, Report, TrainJob
from trainers.promotion import sides, wording
from trainers.promotion.judging import Judgement, judge
from trainers.promotion.sides import Side

DECISIONS_MAX = 8
"""Each further one means that another publisher has just won; who loses so often should come back when it is quiet."""

WRITES_MAX = 8
"""Of `decision.json`, which another attempt at the same run may be writing."""

log = logging.getLogger("trainers")


class Candidate(msgspec.Struct, frozen=True):
    """A published version, the folder its artifact is in, and what it was trained on and for. `alias` is what it shall answer."""

    job: TrainJob
    data: Data
    record: VersionRecord
    folder: Path
    alias: str
    run_id: str
    actor: str

    @property
    def side(self) -> Side:
        manifest = codec.decode((self.folder / layout.MANIFEST).read_bytes(), Manifest)
        return Side(manifest, self.folder)


class Decided(msgspec.Struct, frozen=True):
    """`promotion` is None where the version is held back."""

    decision: Decision
    promotion: Promotion | None


class _Seen(msgspec.Struct, frozen=True):
    """The log at one moment: every decision about the alias, and the newest about the champion."""

    entries: tuple[Promotion, ...]
    champion: Promotion | None

    @property
    def release(self) -> releasing.Release | None:
        return releasing.release_of(self.entries[-1]) if self.entries else None


async def decide(
    store: ObjectStore, candidate: Candidate, report: Report, now_ns: Callable[[], int] = time.time_ns
) -> Decided:
    """Raises `PublishConflict` after `DECISIONS_MAX` lost races, and store errors.

    A version that answers already is not judged again: what was decided about it then still stands.
    """
    report("decide", 0, 1)
    for _ in range(DECISIONS_MAX):
        seen = await _seen(store, candidate)
        if seen.release and seen.release.version == candidate.record.version:
            decided = await _answering(store, candidate, seen, now_ns())
        else:
            decided = await _decided(store, candidate, seen, report, now_ns())
        if decided.promotion or decided.decision.verdict == "hold":
            report("decide", 1, 1)
            return decided
    raise PublishConflict(
        f"model '{candidate.record.model}': {DECISIONS_MAX} other versions took over meanwhile; run again"
    )


async def _answering(store: ObjectStore, candidate: Candidate, seen: _Seen, now_ns: int) -> Decided:
    """It answers already: by this run's own decision, or by somebody else's. The alias may still have to follow its log."""
    decision = await _stored(store, candidate.run_id)
    mine = (candidate.record.version, candidate.alias)
    if decision is None or decision.verdict == "hold" or (decision.version, decision.alias) != mine:
        said = f"version {candidate.record.version} answers already: {seen.entries[-1].reason}"
        decision = _signed(msgspec.structs.replace(_draft(candidate, None, now_ns), sentence=said))
        await _record(store, decision)
    return Decided(decision, await _promoted(store, candidate, decision, seen, now_ns))


async def _decided(store: ObjectStore, candidate: Candidate, seen: _Seen, report: Report, now_ns: int) -> Decided:
    """`promotion` is None after a lost race, too."""
    with tempfile.TemporaryDirectory() as folder:
        other = _other_champion(candidate, seen)
        champion = await _champion(store, other, Path(folder) / "champion") if other else None
        judgement = await in_thread(
            judge, candidate.job, candidate.data, candidate.side, champion, seen.entries, prices.load(), now_ns, report
        )
    decision = _decision(candidate, seen, judgement, now_ns)
    await _record(store, decision)
    if decision.verdict == "hold":
        return Decided(decision, None)
    try:
        return Decided(decision, await _promoted(store, candidate, decision, seen, now_ns))
    except PublishConflict as error:
        log.info("%s", error)
        return Decided(decision, None)


def _decision(candidate: Candidate, seen: _Seen, judgement: Judgement, now_ns: int) -> Decision:
    """To the champion's alias every gate is a condition; to any other only what needs no champion to compare with."""
    is_champions = candidate.alias == layout.CHAMPION
    relative = tuple(msgspec.structs.replace(gate, is_condition=is_champions) for gate in judgement.relative)
    champion = _other_champion(candidate, seen)
    decision = msgspec.structs.replace(
        _draft(candidate, champion, now_ns), gates=(*judgement.absolute, *relative), judged=judgement.judged
    )
    verdict: Verdict = "hold" if decision.failed else "promote" if champion else "first"
    decision = msgspec.structs.replace(decision, verdict=verdict)
    return _signed(msgspec.structs.replace(decision, sentence=wording.sentence(decision)))


def _draft(candidate: Candidate, champion: Promotion | None, now_ns: int) -> Decision:
    record = candidate.record
    return Decision(
        run_id=candidate.run_id,
        model=record.model,
        alias=candidate.alias,
        verdict="promote",
        sentence="",
        version=record.version,
        manifest_sha256=record.manifest_sha256,
        champion_version=champion.version if champion else None,
        champion_sha256=champion.manifest_sha256 if champion else None,
        gates=(),
        judged=(),
        actor=candidate.actor,
        decided_ns=now_ns,
    )


def _signed(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, report_sha256=codec.sha256(codec.encode(decision)))


def _other_champion(candidate: Candidate, seen: _Seen) -> Promotion | None:
    """Nothing is compared with itself."""
    same = seen.champion and seen.champion.manifest_sha256 == candidate.record.manifest_sha256
    return None if same else seen.champion


async def _champion(store: ObjectStore, promotion: Promotion, folder: Path) -> Side | Gate:
    """Or why it cannot be compared with."""
    try:
        return await sides.fetched(store, promotion, folder)
    except ArtifactError as error:
        return Gate("integrity", passed=False, measured=None, limit=0.0, detail=f"the champion: {error}")


async def _promoted(
    store: ObjectStore, candidate: Candidate, decision: Decision, seen: _Seen, now_ns: int
) -> Promotion:
    return await publish.promote(
        store,
        model=candidate.record.model,
        alias=candidate.alias,
        version=candidate.record.version,
        actor=candidate.actor,
        reason=wording.reason(decision),
        now_ns=now_ns,
        over=seen.release,
    )


async def _seen(store: ObjectStore, candidate: Candidate) -> _Seen:
    """From the log and not from the aliases: after a crash they lag behind it."""
    entries = await Registry(store).history(candidate.record.model)
    champions = [entry for entry in entries if entry.alias == layout.CHAMPION]
    return _Seen(
        entries=tuple(entry for entry in entries if entry.alias == candidate.alias),
        champion=champions[-1] if champions else None,
    )


async def _stored(store: ObjectStore, run_id: str) -> Decision | None:
    """None, too, for one that cannot be read: it will be made again."""
    try:
        return codec.decode((await store.get(layout.decision(run_id))).body, Decision)
    except (ObjectNotFound, ManifestInvalid):
        return None


async def _record(store: ObjectStore, decision: Decision) -> None:
    """In the place of an earlier one. Raises `PublishConflict` after `WRITES_MAX` lost ones."""
    key, data = layout.decision(decision.run_id), codec.encode(decision)
    for _ in range(WRITES_MAX):
        try:
            etag = (await store.get(key)).etag
        except ObjectNotFound:
            etag = ""
        try:
            await (store.put_if_match(key, data, etag) if etag else store.put_if_absent(key, data))
        except PreconditionFailed:
            continue
        return
    raise PublishConflict(f"run '{decision.run_id}': another attempt keeps deciding about it; run again")

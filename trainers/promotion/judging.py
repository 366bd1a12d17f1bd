"""Everything that is measured for one decision, and its gates. Blocks; knows neither the store nor who asked.

Called by `trainers.promotion.decision` in a thread: answering rows and timing graphs takes seconds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from gateway.contract.manifest import DataSource
from gateway.contract.prices import PriceBook
from gateway.contract.promotions import Gate, Judged
from gateway.contract.registry import Promotion
from trainers.errors import DataError
from trainers.job import Data, Report, TrainJob
from trainers.promotion import budgets, comparing, evaluation, gates, sides
from trainers.promotion.comparing import Compared, Rows
from trainers.promotion.evaluation import Frozen
from trainers.promotion.sides import Side

DAY_S = 86_400
NOT_CARRIED = "the champion carries no evaluation rows"


class Judgement(msgspec.Struct, frozen=True):
    """`absolute` gates hold whoever the champion is, `relative` ones compare with it."""

    absolute: tuple[Gate, ...]
    relative: tuple[Gate, ...]
    judged: tuple[Judged, ...]


def judge(
    job: TrainJob,
    data: Data,
    candidate: Side,
    champion: Side | Gate | None,
    entries: Sequence[Promotion],
    book: PriceBook,
    now_ns: int,
    report: Report,
) -> Judgement:
    """`champion` is a failed gate where there is one that cannot be opened; `entries` are the alias's log."""
    rules = job.promotion
    other = champion if isinstance(champion, Side) else None
    blocked = _blocked(champion, candidate)
    opposed = None if blocked else other  # what cannot be compared is not answered either
    newest = comparing.newest(data, rules)
    on_newest = comparing.compare(newest, candidate, opposed, data, job.objective, rules)
    absolute = (
        gates.quantization(candidate.manifest),
        gates.at_most("overlap", comparing.overlap(newest, data), rules.overlap_max, "newest rows seen in training"),
        *gates.floors(on_newest, job.objective, rules),
    )
    if champion is None:
        return Judgement(absolute, tuple(gates.pace(entries, now_ns, rules)), (on_newest.judged,))
    if opposed is None:
        return Judgement(absolute, tuple(blocked), (on_newest.judged,))
    stored, unread = _frozen(opposed)
    on_frozen = _on_frozen(stored, unread, candidate, opposed, data, job)
    costs = budgets.measure(opposed, candidate, newest.split, job.target, rules.budgets, book, report)
    relative = [
        gates.problems("integrity", [unread] if unread else [], detail="every digest of the champion is right"),
        gates.problems("signature", [], detail="whoever calls the champion can call this version"),
        *gates.training(_training(job, data, candidate, opposed, stored), rules),
        *gates.no_worse(on_frozen, job.objective, rules),
        *gates.no_worse(on_newest, job.objective, rules),
        *gates.better(on_newest, job.objective, rules),
        *gates.budgets(costs, rules),
        *gates.pace(entries, now_ns, rules),
    ]
    return Judgement(absolute, tuple(relative), (on_frozen.judged, on_newest.judged))


def _blocked(champion: Side | Gate | None, candidate: Side) -> list[Gate]:
    """Why the two cannot be compared at all."""
    if isinstance(champion, Gate):
        return [champion]
    if champion is None:
        return []
    found = sides.incompatible(champion.manifest, candidate.manifest)
    return [gates.problems("signature", found)] if found else []


def _frozen(champion: Side) -> tuple[Frozen | None, str]:
    """What came with the champion, None for one from before rows did, and why it cannot be read."""
    body = champion.file("evaluation")
    try:
        return (None if body is None else evaluation.unpack(body)), ""
    except DataError as error:
        return None, str(error)


def _on_frozen(
    stored: Frozen | None, unread: str, candidate: Side, champion: Side, data: Data, job: TrainJob
) -> Compared:
    if stored is None:
        return Compared(Judged("frozen", 0, skipped=unread or NOT_CARRIED))
    if not stored.split.rows:
        return Compared(Judged("frozen", 0, skipped=NOT_CARRIED))
    if stored.split.inputs.keys() != data.test.inputs.keys():
        return Compared(Judged("frozen", 0, skipped="the champion's rows have other inputs"))
    rows: Rows = comparing.frozen(stored, data, job.promotion)
    return comparing.compare(rows, candidate, champion, data, job.objective, job.promotion)


def _training(job: TrainJob, data: Data, candidate: Side, champion: Side, stored: Frozen | None) -> gates.Training:
    before, after = _newest_s(champion.manifest.lineage.data), _newest_s(candidate.manifest.lineage.data)
    shift = None
    if stored is not None and job.objective.metrics:
        sample = data.train.targets[data.train.spread(evaluation.TRAIN_TARGETS_MAX)]
        shift = comparing.label_shift(job.objective, stored.train_targets, sample)
    return gates.Training(
        rows=data.train.rows,
        champion_rows=stored.train_rows if stored else None,
        label_shift=shift,
        days_newer=None if before is None or after is None else (after - before) / DAY_S,
        is_dated=any(source.last for source in champion.manifest.lineage.data),
    )


def _newest_s(sources: Sequence[DataSource]) -> float | None:
    """The newest moment of all sources that have one, None where none can be read."""
    moments = []
    for source in sources:
        try:
            moment = datetime.fromisoformat(source.last)
        except ValueError:
            continue
        moments.append(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    return max(moments, default=None)

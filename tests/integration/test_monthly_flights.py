"""Real flights of 2013, trained again as months go by: what drifts is real, and so is who may take over.

The quick version trains real networks on every twentieth flight and publishes what they export; the whole year with all rows,
through complete runs, is the slow proof.
"""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from gateway.contract.promotions import Decision
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry.reading import Registry
from tests.support import promotions
from tests.support.models import NOW_NS
from tests.support.monthly import monthly
from trainers import metrics, publish
from trainers.export.exporting import export
from trainers.fit.loop import fit
from trainers.job import TrainJob
from trainers.promotion.decision import Candidate, Decided
from trainers.promotion.wording import reason
from trainers.run import Result, Run, run

EVERY = 20
THINNED = msgspec.structs.replace(promotions.QUICK, margin=0.05, newest_rows_max=800, slice_rows_min=800)
"""Eight hundred rows tell a metric to a few hundredths, and no slice of them anything."""


def quick(through: int, **changes: object) -> TrainJob:
    job = monthly(through, every=EVERY, epochs=2, rules=THINNED, **changes)  # type: ignore[arg-type]
    fitting = msgspec.structs.replace(job.fit, batch_rows=256, warmup_steps=20, average_decay=0.9)
    only = msgspec.structs.replace(job.objective, metrics=(metrics.ROC_AUC,))
    return msgspec.structs.replace(job, fit=fitting, objective=only)


async def retrained(store: ObjectStore, folder: Path, name: str, job: TrainJob) -> Decided:
    data = job.load()
    fitted = fit(job, data, lambda *_: None, "cpu")
    body = export(fitted.module, data, job.objective, job.lengths)
    promotions.artifact(folder / name, data, body, run_id=name, model=job.model)
    record = await publish.publish(store, folder / name, run_id=name, now_ns=NOW_NS)
    candidate = Candidate(job, data, record, folder / name, "champion", name, "anna")
    return await promotions.decided(store, candidate)


def failed(decision: Decision) -> set[str]:
    return {gate.name for gate in decision.failed}


async def test_months_go_by_and_what_is_worse_stays_back(tmp_path: Path):
    async with contextlib.aclosing(open_store(str(tmp_path / "store"), create=True)) as store:
        march = await retrained(store, tmp_path, "march", quick(3))
        may = await retrained(store, tmp_path, "may", quick(5))
        assert [one.decision.verdict for one in (march, may)] == ["first", "promote"], may.decision.sentence
        frozen, newest = may.decision.judged
        assert frozen.rows == 0 < frozen.excluded  # May and June: it was trained on the one and stopped on the other
        assert newest.gains.keys() == {"roc_auc"}

        shuffled = await retrained(store, tmp_path, "shuffled", quick(9, is_shuffled=True))
        assert (shuffled.decision.verdict, shuffled.promotion) == ("hold", None)
        assert failed(shuffled.decision) == {"newest roc_auc"}
        assert "version 2 goes on" in shuffled.decision.sentence
        log = await Registry(store).history("flights")
        assert [(entry.version, entry.reason) for entry in log] == [
            (1, reason(march.decision)),
            (2, reason(may.decision)),
        ]


def completed(folder: Path, name: str, job: TrainJob) -> Result:
    async def once() -> Result:
        async with contextlib.aclosing(open_store(str(folder / "store"), create=True)) as store:
            asked = Run("flights", name, folder / "runs" / name, "anna", device="cpu")
            return await run(job, asked, store, lambda *_: None)

    return asyncio.run(once())


@pytest.mark.e2e
def test_a_year_of_all_flights(tmp_path: Path):
    results = {through: completed(tmp_path, f"through-{through}", monthly(through)) for through in range(3, 10)}
    january = completed(tmp_path, "january", monthly(9, trained=(1,)))
    shuffled = completed(tmp_path, "shuffled", monthly(9, is_shuffled=True))
    decisions = [result.decision for result in results.values() if result.decision]
    verdicts = [decision.verdict for decision in decisions]
    assert (len(verdicts), verdicts[0]) == (7, "first")
    assert {"promote", "hold"} <= set(verdicts)
    for worse in (january, shuffled):
        assert worse.decision
        assert {"newest roc_auc", "newest average_precision"} <= failed(worse.decision)
        assert worse.promotion is None
    assert january.decision
    assert "train_rows_min" in failed(january.decision)

    async def versions() -> list[int]:
        async with contextlib.aclosing(open_store(str(tmp_path / "store"))) as store:
            return [entry.version for entry in await Registry(store).history("flights")]

    assert asyncio.run(versions()) == [result.record.version for result in results.values() if result.promotion]

"""Real flights of 2013, trained again each month through the complete run: what drifts is real, and so is who may take over.

The quick version sees every twentieth flight, twice; the whole year with all rows is the slow proof.
"""

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from gateway.contract.promotions import Decision
from gateway.objectstore.opening import open_store
from gateway.registry.reading import Registry
from tests.support.monthly import monthly
from trainers.job import Limits, Target, TrainJob
from trainers.promotion.wording import reason
from trainers.rules import Rules
from trainers.run import Result, Run, run

THINNED = Rules(margin=0.05, newest_rows_max=800, frozen_rows_max=800, load_ratio_max=None, resident_ratio_max=None)
"""Eight hundred rows tell a metric to a few hundredths."""


def retrained(folder: Path, name: str, job: TrainJob) -> Result:
    async def once() -> Result:
        async with contextlib.aclosing(open_store(str(folder / "store"), create=True)) as store:
            return await run(job, Run("flights", name, folder / "runs" / name, "anna"), store, lambda *_: None)

    return asyncio.run(once())


def quick(through: int, **changes: object) -> TrainJob:
    job = monthly(through, every=20, epochs=2, rules=THINNED, **changes)  # type: ignore[arg-type]
    fit = msgspec.structs.replace(job.fit, batch_rows=256, warmup_steps=20, average_decay=0.9)
    return msgspec.structs.replace(job, fit=fit, limits=Limits(rows_max=500), target=Target(mix={1: 1.0}))


def log(folder: Path) -> list[tuple[int, str]]:
    async def read() -> list[tuple[int, str]]:
        async with contextlib.aclosing(open_store(str(folder / "store"))) as store:
            return [(entry.version, entry.reason) for entry in await Registry(store).history("flights")]

    return asyncio.run(read())


def decision(result: Result) -> Decision:
    assert result.decision
    return result.decision


def failed(result: Result) -> set[str]:
    return {gate.name for gate in decision(result).failed}


def test_months_go_by_and_what_is_worse_stays_back(tmp_path: Path):
    first = retrained(tmp_path, "march", quick(3))
    later = retrained(tmp_path, "august", quick(8))
    assert [decision(result).verdict for result in (first, later)] == ["first", "promote"], decision(later).sentence
    frozen, newest = decision(later).judged
    assert (frozen.rows, "rows that training has not seen" in frozen.skipped) == (0, True)
    assert newest.gains.keys() == {"roc_auc", "average_precision", "brier"}

    shuffled = retrained(tmp_path, "shuffled", quick(9, is_shuffled=True))
    assert (decision(shuffled).verdict, shuffled.promotion) == ("hold", None)
    assert {"newest roc_auc", "newest average_precision"} <= failed(shuffled)
    assert "version 2 goes on" in decision(shuffled).sentence
    assert log(tmp_path) == [(1, reason(decision(first))), (2, reason(decision(later)))]


@pytest.mark.e2e
def test_a_year_of_all_flights(tmp_path: Path):
    results = {through: retrained(tmp_path, f"through-{through}", monthly(through)) for through in range(3, 10)}
    january = retrained(tmp_path, "january", monthly(9, trained=(1,)))
    shuffled = retrained(tmp_path, "shuffled", monthly(9, is_shuffled=True))
    verdicts = [decision(result).verdict for result in results.values()]
    assert verdicts[0] == "first"
    assert verdicts.count("promote") >= 2
    assert "train_rows_min" in failed(january)
    for worse in (january, shuffled):
        assert {"newest roc_auc", "newest average_precision"} <= failed(worse)
        assert worse.promotion is None
    promoted = [result.record.version for result in results.values() if result.promotion]
    assert [version for version, _ in log(tmp_path)] == promoted

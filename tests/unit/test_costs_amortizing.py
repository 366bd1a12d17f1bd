"""Training in portions: periods that follow each other and what remains are the whole cost, also of a version that was retired."""

import contextlib
import io
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gateway.contract import codec
from gateway.contract.registry import Canary, Promotion
from gateway.contract.runs import Progress
from gateway.contract.words import DAY_NS
from gateway.objectstore.local import LocalStore
from gateway.registry import releasing
from gateway.registry.releasing import Author
from gateway.registry.retiring import BACK_WITHIN_NS, retirements
from gateway.reports import amortizing, tables, training
from gateway.reports.amortizing import portion
from gateway.reports.costs import CostReport, report
from gateway.reports.query import Plan
from gateway.reports.render import render
from gateway.reports.training import Known
from tests.support import ledgers, models, trainingruns
from trainers.runs import settle

T0_NS = 1_793_880_000 * 10**9
plans = st.builds(Plan, st.sampled_from(["rows", "days"]), st.integers(1, 1000))


@settings(deadline=None)
@given(
    cost=st.integers(0, 2**70),
    plan=plans,
    edges=st.lists(st.tuples(st.integers(0, 400 * DAY_NS), st.integers(0, 500)), min_size=2, max_size=6),
    retired=st.none() | st.integers(0, 500 * DAY_NS),
)
def test_what_periods_take_and_what_remains_is_the_whole_cost(
    cost: int, plan: Plan, edges: list[tuple[int, int]], retired: int | None
):
    moments, steps = sorted(T0_NS + at for at, _ in edges), [count for _, count in edges]
    counts = list(itertools.accumulate(steps))
    known = Known(cost, published_ns=T0_NS)
    retired_ns = None if retired is None else T0_NS + retired
    parts = [
        portion(("m", 1), known, plan, (counts[i], counts[i + 1]), (moments[i], moments[i + 1]), retired_ns)
        for i in range(len(edges) - 1)
    ]
    taken = parts[0].earlier_picousd
    for part in parts:
        assert part.earlier_picousd == taken
        assert 0 <= part.written_off_picousd <= part.expensed_picousd
        assert part.remaining_picousd >= 0
        taken += part.expensed_picousd
        assert taken + part.remaining_picousd == cost
    if retired_ns is not None and retired_ns < moments[-1]:
        assert parts[-1].remaining_picousd == 0
    else:
        assert not any(part.written_off_picousd for part in parts)


def test_the_remainder_is_written_off_in_the_period_of_the_retirement():
    known = Known(1000, published_ns=T0_NS)
    week = (T0_NS, T0_NS + 7 * DAY_NS)
    part = portion(("m", 1), known, Plan("rows", 100), (10, 40), week, T0_NS + DAY_NS)
    assert (part.earlier_picousd, part.expensed_picousd, part.written_off_picousd, part.remaining_picousd) == (
        *(100, 900, 600),
        0,
    )
    later = portion(("m", 1), known, Plan("rows", 100), (40, 60), (week[1], week[1] + DAY_NS), T0_NS + DAY_NS)
    assert (later.earlier_picousd, later.expensed_picousd, later.remaining_picousd) == (1000, 0, 0)


def test_unpriced_training_stays_unpriced_when_retired():
    part = portion(("m", 1), Known(None, "no price"), Plan("days", 9), (0, 5), (0, T0_NS), 5)
    assert (part.cost_picousd, part.expensed_picousd, part.written_off_picousd) == (None, None, None)


# Retirement


def entry(
    generation: int, version: int, day: float, *, alias: str = "champion", canaries: tuple[int, ...] = ()
) -> Promotion:
    return Promotion(
        "m",
        alias,
        version,
        "0" * 64,
        generation,
        "tests",
        "r",
        T0_NS + round(day * DAY_NS),
        canaries=tuple(Canary(canary, "0" * 64, 100) for canary in canaries),
    )


def days(found: dict[int, int]) -> dict[int, float]:
    return {version: (at_ns - T0_NS) / DAY_NS for version, at_ns in found.items()}


def test_replaced_version_is_retired_a_week_later():
    assert days(retirements([entry(1, 1, 0), entry(2, 2, 3)])) == {1: 10}


def test_rollback_within_the_week_brings_it_back_and_later_ones_do_not():
    early = [entry(1, 1, 0), entry(2, 2, 3), entry(3, 1, 9.9)]
    assert days(retirements(early)) == {2: pytest.approx(16.9)}
    late = [entry(1, 1, 0), entry(2, 2, 3), entry(3, 1, 10)]
    assert days(retirements(late)) == {1: 10, 2: 17}


def test_another_alias_or_a_canary_keeps_a_version():
    assert days(retirements([entry(1, 1, 0), entry(2, 1, 1, alias="eu"), entry(3, 2, 2)])) == {}
    kept = [entry(1, 1, 0), entry(2, 2, 2, canaries=(1,)), entry(3, 2, 4)]
    assert days(retirements(kept)) == {1: 11}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 20), st.sampled_from(["champion", "eu"])), max_size=12))
def test_later_decisions_never_take_a_retirement_back(steps: list[tuple[int, int, str]]):
    moments = itertools.accumulate(after for _, after, _ in steps)
    log = [
        entry(1 + i, version, day, alias=alias)
        for i, ((version, _, alias), day) in enumerate(zip(steps, moments, strict=True))
    ]
    whole = retirements(log)
    for count, following in enumerate(log):
        past = {one: at_ns for one, at_ns in retirements(log[:count]).items() if at_ns <= following.promoted_ns}
        assert past.items() <= whole.items()


async def test_report_writes_off_what_the_log_retired(tmp_path: Path):
    store = LocalStore(tmp_path)
    await models.publish_mlp(store, "m", seed=1)
    await models.publish_mlp(store, "m", seed=2, promote_to=None)
    replaced_ns = models.NOW_NS + 30 * DAY_NS
    author = Author("tests", "better", replaced_ns)
    await releasing.promote(store, model="m", alias="champion", version=2, author=author)
    plan, counts = Plan("rows", 1000), {("m", 1): (0, 250), ("m", 2): (0, 10)}
    [before, _] = await amortizing.amortized(store, plan, counts, 0, replaced_ns + BACK_WITHIN_NS)
    [after, other] = await amortizing.amortized(store, plan, counts, 0, replaced_ns + BACK_WITHIN_NS + 1)
    assert before.cost_picousd is not None
    assert (before.written_off_picousd, before.expensed_picousd) == (0, before.cost_picousd // 4)
    assert (after.remaining_picousd, after.expensed_picousd) == (0, after.cost_picousd)
    assert other.written_off_picousd == 0
    assert msgspec.structs.asdict(after)["written_off_picousd"] == before.remaining_picousd


# What training used


def test_energy_that_gpus_counted_is_told_beside_the_cost(tmp_path: Path):
    paths = []
    for number, energy_nj in enumerate((3_600 * 10**9, msgspec.UNSET, 1_800 * 10**9), 1):
        record = trainingruns.attempt(number)
        ended = settle.end(
            record,
            settle.Earlier(),
            Progress(energy_nj=energy_nj),
            outcome="done",
            exit_code=0,
            message="",
            ended_ns=T0_NS,
            elapsed_ns=10**9,
        )
        path = tmp_path / f"{number}.json"
        path.write_bytes(codec.encode(settle.charge(trainingruns.run("r"), record, ended)))
        paths.append(path)
    counted, silent = training.spent(paths, 0, 2**62, None), training.spent(paths[1:2], 0, 2**62, None)
    assert counted is not None
    assert silent is not None
    assert (counted.energy_nj, silent.energy_nj) == (5_400 * 10**9, None)
    with ledgered() as empty:
        told = [printed(msgspec.structs.replace(empty, training_spent=spent)) for spent in (counted, silent)]
    assert "; 1.500 Wh of its GPUs, measured" in told[0]
    assert "measured" not in told[1]


@contextlib.contextmanager
def ledgered() -> Iterator[CostReport]:
    with tempfile.TemporaryDirectory() as folder, tables.opened(ledgers.write(Path(folder), {})) as connection:
        yield report(connection)


def printed(of: CostReport) -> str:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    render(of, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()

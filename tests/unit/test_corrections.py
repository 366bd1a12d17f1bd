"""Corrections: reports become the bill to the pico-dollar, once, whoever posts how often; and what is taken from whom, and why."""

import asyncio
import random
import tempfile
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.verifying import Scope, verify
from gateway.contract import codec, layout, prices
from gateway.contract.corrections import Posted
from gateway.contract.ledger import Charge, Posting
from gateway.errors import StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.reports import breakdown, costs, focus, focusrows, hourly, hourproof, reconcileposting, tables
from gateway.reports.query import VIEWS, Query
from gateway.reports.reconcileposting import Author
from gateway.reports.reconcileresources import ByResource, container_of
from gateway.reports.sync import sync
from tests.support import ledgers, providerbills
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger
from tests.support.memorystore import MemoryStore
from tests.support.providerbills import FROM_NS, UNKNOWN, BillRow

NOW = Author("tester", T0_NS + 30 * 24 * HOUR_NS)
BOOK = prices.load()
seeds = st.integers(0, 2**32)

SERVED = Posting("infer", VCPU, 600, 1, "digits", 1, "acme", "ok", 2, 4)
OTHER = Posting("infer", VCPU, 200, 1, "flights", 7, "", "ok", 1, 1)
WARM = Posting("resident", MEMORY, 100, 3, "digits", 1)
IDLE = Posting("idle_cpu", VCPU, 200, 4)
SEGMENT = [*ledgers.charges(1000, 100), SERVED, OTHER, IDLE, WARM]
"""2 vCPU and 4 GB for a minute."""
ONE = ledgers.container("box", [SEGMENT])
ARN = "arn:aws:ecs:eu-central-1:111122223333:task/prod/0f1e"


class Books:
    """A store with a ledger, its local copy, and bills."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.store = LocalStore(folder / "store")
        self._folder = folder
        (folder / "store").mkdir()
        ledgers.write(folder / "store", ledger)

    def post(
        self, rows: Sequence[BillRow], name: str = "bill.csv", *, resource: str | None = "*", author: Author = NOW
    ) -> ByResource:
        path = providerbills.write(self._folder / name, rows)
        work = reconcileposting.post(self.store, self._folder / "cache", path, resource, author, accept_repeated=True)
        return asyncio.run(work)

    def posted(self) -> list[Posted]:
        async def read() -> list[Posted]:
            keys = [info.key async for info in self.store.list(layout.CORRECTIONS)]
            return [codec.decode((await self.store.get(key)).body, Posted) for key in keys]

        return asyncio.run(read())

    def rows(self) -> list[dict[str, object]]:
        """All of FOCUS's, a second witness of what is reported for whom and when."""
        with self.opened() as connection:
            return list(focus.rows(connection, focusrows.Account(), focus.Books(BOOK), 0, 2**63 - 1))

    def opened(self):
        return tables.opened(asyncio.run(sync(self.store, self._folder / "cache", is_whole=True)))

    def report(self) -> costs.CostReport:
        with self.opened() as connection:
            return costs.report(connection)


def reported(rows: Iterable[dict[str, object]], names: set[str], span: tuple[int, int]) -> int:
    wanted = {providerbills.moment(span[0] + hour * HOUR_NS) for hour in range((span[1] - span[0]) // HOUR_NS)}
    return sum(
        int(Decimal(str(row["EffectiveCost"])) * 10**12)
        for row in rows
        if row["ResourceId"] in names and row["ChargePeriodStart"] in wanted
    )


def agrees(books: Books, bill: Sequence[BillRow]) -> None:
    """For each resource, in each stretch of hours that its rows cover together, the report is the bill's sum."""
    rows = books.rows()
    owners: dict[str, list[BillRow]] = {}
    for row in bill:
        if row.resource:
            owners.setdefault(row.resource.rsplit("/", 1)[-1], []).append(row)
    for owner, mine in owners.items():
        names = {owner, *(row.resource for row in mine)}
        hours = sorted({hour for row in mine for hour in range(*row.hours)})
        billed = sum(row.cost_picousd for row in mine)
        assert sum(reported(rows, names, (FROM_NS + h * HOUR_NS, FROM_NS + (h + 1) * HOUR_NS)) for h in hours) == billed


@settings(max_examples=4, deadline=None)
@given(seeds)
def test_reports_become_the_bill_to_the_picodollar(seed: int):
    becomes_the_bill(seed)


@pytest.mark.e2e
@settings(max_examples=60, deadline=None)
@given(seeds)
def test_reports_become_the_bill_to_the_picodollar_for_many_ledgers(seed: int):
    becomes_the_bill(seed)


def becomes_the_bill(seed: int) -> None:
    """Of a random ledger and two random bills, each posted twice."""
    rng = random.Random(seed)
    ledger = providerbills.ledger(rng)
    first, second = providerbills.bill(rng, ledger), providerbills.bill(rng, ledger)
    with tempfile.TemporaryDirectory() as folder:
        books = Books(Path(folder), ledger)
        books.post(first, "first.csv")
        agrees(books, first)
        before = books.posted()
        assert books.post(first, "first.csv").generation == 0
        assert books.posted() == before
        books.post(second, "second.csv")
        agrees(books, second)
        after = books.posted()
        assert books.post(second, "second.csv").generation == 0
        assert books.posted() == after
        _sums_agree(books, after)
        found = asyncio.run(verify(books.store, Scope(), now_ns=NOW.now_ns, reader=hourproof.read))
        assert [one for one in found.findings if "corrections/" in one.key] == []
        assert found.corrected_picousd == sum(one.cost_picousd for one in after)


def _sums_agree(books: Books, posted: Sequence[Posted]) -> None:
    corrected = sum(one.cost_picousd for one in posted)
    for one in posted:
        for line in one.corrections:
            assert sum(entry.cost_picousd for entry in line.entries) == line.cost_picousd
    with books.opened() as connection:
        report = costs.report(connection)
        assert report.balanced
        assert report.corrected_picousd == corrected
        for view in VIEWS:
            shown = breakdown.report(breakdown.sheet(connection, Query(view=view)), ("model", "tenant", "activity"))
            assert shown.balanced
            assert sum(row.cost_picousd for row in shown.rows) == shown.charged_picousd == report.charged_picousd
    assert reported_all(books.rows()) == report.charged_picousd


def reported_all(rows: Iterable[dict[str, object]]) -> int:
    return sum(int(Decimal(str(row["BilledCost"])) * 10**12) for row in rows)


def test_correction_follows_direct_cost_and_is_told_by_reason(tmp_path: Path):
    books = Books(tmp_path, ONE)
    bill = [
        BillRow(
            "arn:aws:ecs:us-east-1:1:task/prod/box", VCPU, 3000, quantity="0.066666666666666667", unit="Core-Hours"
        ),
        BillRow("arn:aws:ecs:us-east-1:1:task/prod/box", MEMORY, 90),
    ]
    assert dict(books.post(bill).posted) == {"quantity": 1000, "price": 1000 - 10}
    [posted] = books.posted()
    lines = {(line.sku, line.reason): line for line in posted.corrections}
    assert set(lines) == {(VCPU, "quantity"), (VCPU, "price"), (MEMORY, "price")}
    more = lines[VCPU, "quantity"]
    assert (more.container, more.ledger_picousd, more.bill_picousd) == ("box", 1000, 3000)
    assert {(entry.model, entry.tenant): entry.cost_picousd for entry in more.entries} == {
        ("digits", "acme"): 750,
        ("flights", ""): 250,
    }
    assert [entry.cost_picousd for entry in lines[MEMORY, "price"].entries] == [-8, -2]
    report = books.report()
    assert {row.model: row.full_picousd for row in report.models} == {"digits": 2347, "flights": 743}
    assert report.charged_picousd == 3090


def test_without_traffic_it_stays_on_the_platform(tmp_path: Path):
    books = Books(tmp_path, ledgers.container("box", [[*ledgers.charges(1000, 0), Posting("idle_cpu", VCPU, 1000, 1)]]))
    books.post([BillRow("box", VCPU, 1)])
    [entry] = books.posted()[0].corrections[0].entries
    assert (entry.model, entry.cost_picousd) == ("", -999)
    report = books.report()
    assert {account.account: account.cost_picousd for account in report.accounts} == {
        "idle_cpu": 1000,
        "correction": -999,
    }
    assert (report.charged_picousd, report.balanced) == (1, True)


def test_what_the_ledger_does_not_know_needs_a_name(tmp_path: Path):
    books = Books(tmp_path, ONE)
    bill = [
        BillRow(UNKNOWN, "USE1-Fargate-vCPU-Hours", 5 * 10**12),
        BillRow("box", VCPU, 1000),
        BillRow("box", MEMORY, 100),
    ]
    told = books.post(bill, resource=None)
    assert (told.posted, {flag.kind for flag in told.flags}) == ((), {"not_in_ledger"})
    assert dict(books.post(bill, resource="arn:*/nobody").posted) == {"unobserved": 5 * 10**12}
    assert books.report().charged_picousd == 5 * 10**12 + 1100
    [row] = [row for row in books.rows() if row["ResourceId"] == UNKNOWN]
    assert (row["ChargeClass"], row["x_CorrectionReason"], row["ServiceName"]) == (
        "Correction",
        "unobserved",
        "AWS Fargate",
    )
    assert (row["AllocatedResourceId"], row["InvoiceId"][:8]) == ("platform:correction", "2026-12-")


async def test_corrections_are_no_traffic_and_no_segments(tmp_path: Path):
    (tmp_path / "store").mkdir()
    ledgers.write(tmp_path / "store", ONE)
    store, cache = LocalStore(tmp_path / "store"), tmp_path / "cache"
    path = providerbills.write(
        tmp_path / "bill.csv", [BillRow(UNKNOWN, "x", 5, hours=(15, 16)), BillRow("box", VCPU, 5)]
    )
    before = await hourly.requests(store, cache, "digits")
    await reconcileposting.post(store, cache, path, "*", NOW)
    assert await hourly.requests(store, cache, "digits") == before == {T0_NS // HOUR_NS: 2}
    report = await costs.read(store, cache)
    assert (report.segments, report.charged_picousd, report.balanced) == (1, 10, True)
    late = await costs.read(store, cache, since_ns=T0_NS + 2 * HOUR_NS)
    assert (late.segments, late.charged_picousd, late.unallocated_picousd) == (1, 5, 5)  # not "no costs yet"


def test_unpriced_container_gets_its_price_from_the_bill(tmp_path: Path):
    books = Books(tmp_path, ledgers.container("box", [[*ledgers.charges(0, 0), Posting("unpriced", VCPU, 0, 7)]]))
    assert dict(books.post([BillRow("box", VCPU, 400, quantity="1", unit="Core-Hours")]).posted) == {"price": 400}
    assert books.report().charged_picousd == 400


def test_machine_is_billed_as_one(tmp_path: Path):
    books = Books(tmp_path, ONE)
    told = books.post([BillRow("box", "BoxUsage:c7i.large", 2200, quantity="0.016666666666666667", unit="Hrs")])
    assert dict(told.posted) == {"price": 1100}
    assert (
        sum(entry.cost_picousd for line in books.posted()[0].corrections for entry in line.entries if entry.sku == VCPU)
        == 1000
    )


def test_older_bill_does_not_undo_a_newer_one(tmp_path: Path):
    books = Books(tmp_path, ONE)
    older, newer = ([BillRow("box", VCPU, cost)] for cost in (1000, 3000))
    books.post(older, "older.csv")
    books.post(newer, "newer.csv")
    told = books.post(older, "older.csv")
    assert (told.generation, {flag.kind for flag in told.flags}) == (0, {"superseded"})
    agrees(books, newer)


def test_late_segment_is_made_good_by_the_same_bill(tmp_path: Path):
    books = Books(tmp_path, ONE)
    bill = [BillRow("box", VCPU, 5000)]
    books.post(bill)
    ledgers.write(tmp_path / "store", ledgers.container("box", [SEGMENT], boot_ns=T0_NS + 120 * 10**9))
    assert books.report().charged_picousd == 6100
    books.post(bill)
    agrees(books, bill)
    ids = [line.id for posted in books.posted() for line in posted.corrections]
    assert len(set(ids)) == len(ids)


def test_hours_that_are_not_over_are_left_alone(tmp_path: Path):
    books = Books(tmp_path, ONE)
    told = books.post([BillRow("box", VCPU, 5000)], author=Author("tester", T0_NS + HOUR_NS))
    assert ([line.difference_picousd for line in told.lines], told.posted) == ([-100, 4000], ())
    assert (told.generation, books.posted()) == (0, [])
    assert {flag.kind for flag in told.flags} == {"not_over"}


def test_bill_by_hours_replaces_one_of_a_month(tmp_path: Path):
    books = Books(tmp_path, ONE)
    month, hours = (
        [BillRow("box", VCPU, 10**9, hours=(-96, 600))],
        [BillRow("box", VCPU, 2000), BillRow("box", MEMORY, 100)],
    )
    books.post(month, "month.csv")
    agrees(books, month)
    books.post(hours, "hours.csv")
    agrees(books, hours)


async def test_of_two_who_post_at_once_one_corrects(tmp_path: Path):
    store = MemoryStore()
    store.objects |= ONE
    paths = [providerbills.write(tmp_path / f"{cost}.csv", [BillRow("box", VCPU, cost)]) for cost in (3000, 5000)]
    both = (reconcileposting.post(store, tmp_path / str(n), path, None, NOW) for n, path in enumerate(paths))
    told = await asyncio.gather(*both)
    assert sorted(one.generation or 0 for one in told) == [1, 2]
    local = await sync(store, tmp_path / "after", is_whole=True)
    with tables.opened(local) as connection:
        assert costs.report(connection).charged_picousd in {3000, 5000}


async def test_lost_answer_is_not_posted_twice(tmp_path: Path):
    store = MemoryStore()
    store.objects |= ONE
    path = providerbills.write(tmp_path / "bill.csv", [BillRow("box", VCPU, 3000)])
    store.faults.append("lost answer")
    with pytest.raises(StoreUnavailable):
        await reconcileposting.post(store, tmp_path / "cache", path, None, NOW)
    assert (await reconcileposting.post(store, tmp_path / "cache", path, None, NOW)).generation == 0
    assert store.keys(layout.CORRECTIONS) == [layout.corrections(1)]


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda one: msgspec.structs.replace(one, cost_picousd=one.cost_picousd + 1), "unbalanced"),
        (lambda one: msgspec.structs.replace(one, generation=9), "misplaced"),
        (lambda one: msgspec.structs.replace(one, previous_sha256="0" * 64), "broken_chain"),
        (lambda one: msgspec.structs.replace(one, bill_sha256="1" * 64), "unbalanced"),
    ],
)
def test_verify_names_what_was_changed(tmp_path: Path, damage, kind: str):
    books = Books(tmp_path, ONE)
    books.post([BillRow("box", VCPU, 3000)])
    key = tmp_path / "store" / layout.corrections(1)
    key.chmod(0o600)
    key.write_bytes(codec.encode(damage(codec.decode(key.read_bytes(), Posted))))
    found = asyncio.run(verify(books.store, Scope(), now_ns=NOW.now_ns, reader=hourproof.read))
    assert kind in {one.kind for one in found.findings if one.key == layout.corrections(1)}


def test_verify_names_a_posting_that_is_missing_or_damaged(tmp_path: Path):
    books = Books(tmp_path, ONE)
    for cost in (3000, 4000, 5000):
        books.post([BillRow("box", VCPU, cost)], f"{cost}.csv")
    (tmp_path / "store" / layout.corrections(2)).unlink()
    found = asyncio.run(verify(books.store, Scope(), now_ns=NOW.now_ns, reader=hourproof.read))
    assert "gap" in {one.kind for one in found.findings if "corrections/" in one.key}
    key = tmp_path / "store" / layout.corrections(3)
    key.chmod(0o600)
    key.write_bytes(key.read_bytes()[:-9])
    found = asyncio.run(verify(books.store, Scope(), now_ns=NOW.now_ns, reader=hourproof.read))
    assert "damaged" in {one.kind for one in found.findings if one.key == layout.corrections(3)}


@pytest.mark.parametrize(
    ("resource", "container"),
    [
        ("box", "box"),
        ("arn:aws:ecs:us-east-1:1:task/prod/box", "box"),
        ("projects/p/instances/box", "box"),
        ("box2", ""),
        ("", ""),
    ],
)
def test_resource_is_the_container_that_its_name_ends_with(resource: str, container: str):
    assert container_of(resource, {"box"}) == container


@pytest.mark.parametrize("billed", [ARN, "0f1e", "mine"])
def test_a_container_with_a_name_of_its_own_is_found_by_its_arn(tmp_path: Path, billed: str):
    """Its id was set, so that the last part of its ARN is not it; then only the whole ARN, or the id itself, says so."""
    books = Books(tmp_path, ledgers.container("mine", [SEGMENT], resource=ARN))
    found = books.post([BillRow(billed, VCPU, 3000)])
    [line] = [line for line in found.lines if line.bill_picousd]
    assert line.container == ("" if billed == "0f1e" else "mine")
    resources = {row["ResourceId"] for row in books.rows()}
    assert resources == ({ARN, "0f1e"} if billed == "0f1e" else {ARN})


def test_an_arn_that_two_containers_share_is_neither_of_them(tmp_path: Path):
    two = ledgers.container("gateway", [SEGMENT], resource=ARN) | ledgers.container("side", [SEGMENT], resource=ARN)
    [line] = [line for line in Books(tmp_path, two).post([BillRow(ARN, VCPU, 3000)]).lines if line.bill_picousd]
    assert (line.container, line.resource) == ("", ARN)


def test_charges_of_the_test_are_what_they_say():
    assert sum(line.cost_picousd for line in ledgers.all_lines(ONE) if isinstance(line, Charge)) == 1100

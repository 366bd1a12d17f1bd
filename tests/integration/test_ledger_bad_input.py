"""Ledgers that no gateway should have written, and stores that leave: a named error or a flagged row, and nothing is lost."""

import contextlib
import csv
import io
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from gateway.contract import layout
from gateway.contract.ledger import Posting
from gateway.errors import StoreUnavailable, WrittenByNewer
from gateway.objectstore.local import LocalStore
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import breakdown, compaction, export
from gateway.reports.breakdown import Breakdown
from gateway.reports.query import Query
from tests.support import faultproxy, ledgers, ledgersim, servers, stores
from tests.support.faultproxy import Fault
from tests.support.ledgers import HOUR_NS, T0_NS, VCPU
from tests.support.memorystore import MemoryStore

SERVED = Posting("infer", VCPU, 600, 10**6, "digits", 1, "acme", "ok", 3, 6)
LINES = [*ledgers.charges(600, 0), SERVED]
EVERY = Query(("model", "tenant", "activity", "hour"))
LATER_NS = T0_NS + 30 * 24 * HOUR_NS


def stored(*lives: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for life in lives:
        store.objects |= life
    return store


async def reported(
    store: ObjectStore, folder: Path, query: Query = EVERY, now_ns: Callable[[], int] = time.time_ns
) -> Breakdown:
    return await breakdown.read(store, folder, query, now_ns=now_ns)


async def both(store: MemoryStore, folder: Path, now_ns: int = LATER_NS) -> tuple[Breakdown, Breakdown]:
    """The report before compaction, and after it without the segments that were compacted."""
    before = await reported(store, folder / "before", now_ns=lambda: LATER_NS)
    done = await compaction.compact(store, folder / "w", now_ns=now_ns)
    assert done.committed
    assert done.refused == ()
    for manifest in done.committed:
        for given in manifest.inputs:
            del store.objects[given.key]
    return before, await reported(store, folder / "after", now_ns=lambda: LATER_NS)


async def test_a_newer_segment_is_refused_by_name_and_its_hour_left_alone(tmp_path: Path) -> None:
    store = stored(ledgers.container("old", [LINES]), ledgers.container("new", [LINES], boot_ns=T0_NS + HOUR_NS))
    key = max(ledgers.segment_keys(store.objects))
    header, *rows = ledgers.lines(store.objects[key])
    store.objects[key] = ledgers.pack([msgspec.structs.replace(header, schema_version=2), *rows])
    whole = dict(store.objects)
    done = await compaction.compact(store, tmp_path, now_ns=LATER_NS)
    assert [(one.kind, one.key) for one in done.refused] == [("newer_version", key)]
    assert [one.hr for one in done.committed] == ["12"]
    assert store.objects.items() >= whole.items()
    with pytest.raises(WrittenByNewer, match="upgrade"):
        await reported(store, tmp_path)


async def test_a_newer_manifest_or_plan_stops_reports_and_compaction_by_name(tmp_path: Path) -> None:
    store = stored(ledgers.container("c", [LINES]))
    await compaction.compact(store, tmp_path / "w", now_ns=LATER_NS)
    for kind, version in (("manifests", b'"schema_version":2'), ("plans", b'"schema_version":1')):
        [key] = store.keys(layout.compacted(kind))
        written = store.objects[key]
        store.objects[key] = written.replace(version, b'"schema_version":7')
        before = dict(store.objects)
        with pytest.raises(WrittenByNewer, match="upgrade"):
            await compaction.compact(store, tmp_path / f"again-{kind}", now_ns=LATER_NS)
        assert store.objects == before
        if kind == "manifests":
            with pytest.raises(WrittenByNewer, match="upgrade"):
                await reported(store, tmp_path / "r")
        store.objects[key] = written


async def test_clocks_a_day_ahead_or_behind_count_in_the_hour_they_say(tmp_path: Path) -> None:
    """Behind: the hour was closed long ago, and gets the segments. Ahead: it has not ended, and is read as segments."""
    day_ns = 24 * HOUR_NS
    lives = {name: T0_NS + shift_ns for name, shift_ns in {"right": 0, "ahead": day_ns, "behind": -day_ns}.items()}
    store = stored(*(ledgers.container(name, [LINES], boot_ns=boot_ns) for name, boot_ns in lives.items()))
    before, after = await both(store, tmp_path, now_ns=T0_NS + 2 * HOUR_NS)
    assert len(ledgers.segment_keys(store.objects)) == 1  # ahead
    assert before == after
    assert {row.hour for row in after.rows} == {f"2026-11-0{day}T12:00:00Z" for day in (4, 5, 6)}
    assert (after.charged_picousd, after.balanced, after.faults) == (1800, True, ())


async def test_a_clock_that_was_wrong_is_flagged_in_reports_and_costs_nothing(tmp_path: Path) -> None:
    """As the audit names it: a life in the future, and one that is seen after its container's next life began."""
    day_ns = 24 * HOUR_NS
    ahead = stored(ledgers.container("ahead", [LINES], boot_ns=time.time_ns() + day_ns))
    back = stored(ledgers.container("box", [LINES] * 3), ledgers.container("box", [LINES], boot_ns=T0_NS + 10**9))
    right = stored(ledgers.container("box", [LINES]), ledgers.container("box", [LINES], boot_ns=T0_NS + day_ns))
    for name, store, cost, told in (
        ("ahead", ahead, 600, "which is yet to come"),
        ("back", back, 2400, "a clock was set back"),
        ("right", right, 1200, ""),
    ):
        report = await reported(store, tmp_path / name)
        assert (report.charged_picousd, report.balanced, report.faults) == (cost, True, ())
        jumps = [note.message for note in report.findings if note.kind == "clock_jump"]
        assert len(jumps) == bool(told)
        assert all(told in jump for jump in jumps)


@pytest.fixture(scope="module")
def killed() -> dict[str, bytes]:
    return ledgersim.killed_twice().disk.objects


async def test_a_window_without_a_sign_of_life_is_flagged_and_nobodys(killed: dict[str, bytes], tmp_path: Path) -> None:
    """Segments in the middle of a life that are nowhere: a gap by name, and its part of the bill is unattributed."""
    objects = killed
    whole = await reported(stored(objects), tmp_path / "whole")
    first_life = min(objects, key=lambda key: key.rpartition("/")[2] if key.startswith(layout.segments()) else "~")
    boot = first_life.rpartition("/")[2].partition("-")[0]
    silent = {
        key
        for key in objects
        if key.startswith(layout.segments()) and f"/{boot}-0000000000" in key and key[-11] in "23"
    }
    assert 2 < len(silent) < 30
    before, after = await both(stored({k: b for k, b in objects.items() if k not in silent}), tmp_path)
    assert before == after
    assert after.charged_picousd == whole.charged_picousd
    assert [fault.kind for fault in after.faults] == ["gap"]
    lost, known = (
        sum(row.cost_picousd for row in one.rows if row.activity == "unattributed") for one in (after, whole)
    )
    assert lost > known


async def test_an_empty_period_of_a_compacted_ledger_is_no_error(tmp_path: Path) -> None:
    store = stored(ledgers.container("c", [LINES]))
    await both(store, tmp_path)
    report = await reported(store, tmp_path / "r", Query(since_ns=LATER_NS, until_ns=LATER_NS + HOUR_NS))
    assert (report.rows, report.segments, report.charged_picousd, report.balanced) == ((), 0, 0, True)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", 'a,b\n"c"\r\n=1', "+1", "@sum", "ä;\t", "' OR 1=1 --"])
async def test_names_go_through_compaction_and_csv_unchanged_and_harmless(tmp_path: Path, name: str) -> None:
    posting = msgspec.structs.replace(SERVED, model=name, tenant=name)
    before, after = await both(stored(ledgers.container("c", [[*ledgers.charges(600, 0), posting]])), tmp_path)
    assert before == after
    rows = list(csv.DictReader(io.StringIO(export.encoded(after, "csv").decode(), newline="")))
    [row] = [row for row in rows if row["model"]]
    shown = f"'{name}" if name.lstrip(" ")[0] in "=+-@\t\r" else name
    assert (row["model"], row["tenant"], row["cost_picousd"]) == (shown, shown, "600")


# A store that vanishes half way


class Vanishing(LocalStore):
    """A folder that is moved away before the write numbered `left`."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root)
        self._away_from, self._left = root, left

    async def put_if_absent(self, key: str, body: bytes) -> str:
        self._count()
        return await super().put_if_absent(key, body)

    async def put_stream_if_absent(self, key: str, chunks: AsyncIterator[bytes], *, sha256: str, size: int) -> None:
        self._count()
        await super().put_stream_if_absent(key, chunks, sha256=sha256, size=size)

    def _count(self) -> None:
        if self._left == 0:
            self._away_from.rename(self._away_from.with_name("away"))
        self._left -= 1


@pytest.mark.parametrize("left", range(7))
async def test_a_folder_that_vanishes_during_compaction(tmp_path: Path, left: int) -> None:
    """The error is named, the next run finishes, and what it makes is what an undisturbed run makes."""
    life = ledgers.container("c", [LINES] * 3)
    undisturbed = stored(life)
    await compaction.compact(undisturbed, tmp_path / "u", now_ns=LATER_NS)
    root = tmp_path / "store"
    ledgers.write(root, life)
    with pytest.raises(StoreUnavailable):
        await compaction.compact(Vanishing(root, left), tmp_path / "w", now_ns=LATER_NS)
    assert not root.exists()
    (tmp_path / "away").rename(root)
    await compaction.compact(LocalStore(root), tmp_path / "w", now_ns=LATER_NS)
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {key: body for key, body in found.items() if key in undisturbed.objects} == undisturbed.objects


@pytest.mark.parametrize("table", ["plans", "postings", "manifests"])
async def test_an_s3_server_that_vanishes_during_compaction(
    moto: servers.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Its answers are lost from one write on, the write itself included or not: nobody knows. The next run finishes."""
    life = ledgers.container("c", [LINES] * 3)
    undisturbed = stored(life)
    await compaction.compact(undisturbed, tmp_path / "u", now_ns=LATER_NS)
    bucket = stores.bucket(moto, monkeypatch)
    with moto.client() as client:
        for key, body in life.items():
            client.put_object(Bucket=bucket, Key=key, Body=body)
    async with faultproxy.running(moto.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        async with contextlib.aclosing(open_store(f"s3://{bucket}")) as store:
            proxy.faults.append(Fault(f"PUT /{bucket}/compacted/v1/{table}", times=100, keep_bytes=0))
            with pytest.raises(StoreUnavailable):
                await compaction.compact(store, tmp_path / "w", now_ns=LATER_NS)
            proxy.faults.clear()
            await compaction.compact(store, tmp_path / "w", now_ns=LATER_NS)
            kept = {info.key: (await store.get(info.key)).body async for info in store.list("")}
    assert kept == undisturbed.objects

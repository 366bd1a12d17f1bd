"""`steelyard ledger compact`: the same segments make the same bytes, whatever stops it on the way, and every row is there once."""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import duckdb
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounting import segment
from gateway.cli.ledger import ledger as command
from gateway.contract import codec, layout
from gateway.contract.compacted import TABLES, Manifest, Plan
from gateway.contract.ledger import Charge, Phases, Posting, Request, Segment
from gateway.errors import ManifestInvalid, StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.reports import compaction, hourfiles
from tests.support import ledgers, ledgersim
from tests.support.memorystore import MemoryStore

LATER_NS = ledgersim.START_NS + 30 * 24 * 3600 * 10**9


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    """Segments in several hours, of three lives."""
    found = ledgersim.killed_twice().disk.objects
    assert len({key.split("/")[3] for key in found if key.startswith(layout.segments())}) > 2
    return found


def stored(objects: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    store.objects |= objects
    return store


def made(store: MemoryStore) -> dict[str, bytes]:
    return {key: store.objects[key] for key in store.keys(layout.COMPACTED)}


async def compact(store: MemoryStore, folder: Path, now_ns: int = LATER_NS) -> compaction.Compacted:
    return await compaction.compact(store, folder, now_ns=now_ns)


def files(root: Path, table: str) -> str:
    return f"read_parquet('{root}/compacted/v1/{table}/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"


def put(root: Path, objects: dict[str, bytes]) -> None:
    for key, body in objects.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


async def test_who_waits_is_told_each_hour(objects: dict[str, bytes], tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    done = await compaction.compact(stored(objects), tmp_path, now_ns=LATER_NS, note=lambda *one: told.append(one))
    hours = [f"{one.dt}T{one.hr}:00Z" for one in done.committed]
    assert told[1:] == [*((n, len(hours), hour) for n, hour in enumerate(hours)), (len(hours), len(hours), "")]


async def test_the_same_segments_make_the_same_bytes(objects: dict[str, bytes], tmp_path: Path) -> None:
    one, other = stored(objects), stored(dict(reversed(objects.items())))
    first = await compact(one, tmp_path / "a")
    await compact(other, tmp_path / "b")
    assert first.refused == ()
    assert len(first.committed) > 2
    assert made(one) == made(other)
    before = dict(one.objects)
    assert (await compact(one, tmp_path / "a")).committed == ()
    assert one.objects == before
    assert {key: one.objects[key] for key in objects} == objects


async def test_every_line_is_in_parquet_once(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = stored(objects)
    await compact(store, tmp_path / "copies")
    put(tmp_path, made(store))
    parsed = [segment.decode(body) for key, body in objects.items() if key.startswith(layout.segments())]
    query = duckdb.connect().execute
    requests = Counter(query(f"SELECT id, cost_picousd, at_ns FROM {files(tmp_path, 'requests')}").fetchall())
    assert requests == Counter((line.id, line.cost_picousd, line.at_ns) for one in parsed for line in one.requests)
    postings = query(
        f"SELECT account, sku, cost_picousd, quantity::HUGEINT FROM {files(tmp_path, 'postings')}"
    ).fetchall()
    expected = Counter(
        (line.account, line.sku, line.cost_picousd, line.quantity) for one in parsed for line in one.postings
    )
    assert Counter(postings) == expected
    assert query(f"SELECT count(DISTINCT (container, boot_ns, seq)) FROM {files(tmp_path, 'segments')}").fetchall() == [
        (len(parsed),)
    ]
    charged = sum(charge.cost_picousd for one in parsed for charge in one.charges)
    sums = query(f"SELECT sum(cost_picousd) FROM {files(tmp_path, 'charges')} GROUP BY dt, hr").fetchall()
    assert sum(cost for (cost,) in sums) == charged
    misplaced = f"""SELECT count(*) FROM {files(tmp_path, "requests")}
        WHERE strftime(make_timestamp(at_ns // 1000), '%Y-%m-%d %H') <> dt || ' ' || hr"""
    assert query(misplaced).fetchall() == [(0,)]


async def test_manifests_prove_what_was_made(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = stored(objects)
    committed = (await compact(store, tmp_path)).committed
    keys = {given.key for manifest in committed for given in manifest.inputs}
    assert keys == {key for key in objects if key.startswith(layout.segments())}
    for manifest in committed:
        key = layout.compacted("manifests", manifest.dt, manifest.hr, manifest.generation)
        assert codec.decode(store.objects[key], Manifest) == manifest
        assert [file.table for file in manifest.files] == list(TABLES)
        for file in manifest.files:
            assert (file.sha256, file.size_bytes) == (
                codec.sha256(store.objects[file.key]),
                len(store.objects[file.key]),
            )
    last_write = [key for key in store.attempts if key.startswith(layout.COMPACTED)][-1]
    assert last_write.startswith(layout.compacted("manifests"))


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_store_that_vanishes_half_way_loses_nothing(
    objects: dict[str, bytes], tmp_path: Path, after_effect: bool
) -> None:
    """At every single write: the next run goes on, and what it makes is what an undisturbed run makes."""
    kept = {key: body for key, body in objects.items() if "/hr=" not in key or "/hr=13/" in key}
    whole = stored(kept)
    await compact(whole, tmp_path)
    writes = len(whole.attempts)
    assert writes == 7  # plan, five files, manifest
    for write in range(writes):
        store = stored(kept)
        store.faults.extend([*["none"] * write, "lost answer" if after_effect else "unavailable"])
        with pytest.raises(StoreUnavailable):
            await compact(store, tmp_path)
        if store.keys(layout.compacted("sums")):  # so whoever sees an hour's sums sees all of the hour
            assert all(store.keys(layout.compacted(table)) for table in TABLES)
        await compact(store, tmp_path)
        assert made(store) == made(whole)
        assert {key: store.objects[key] for key in kept} == kept


async def test_segments_that_come_late_are_the_hours_next_generation(objects: dict[str, bytes], tmp_path: Path) -> None:
    late = sorted(key for key in objects if "/hr=13/" in key)[-2:]
    store = stored({key: body for key, body in objects.items() if key not in late})
    await compact(store, tmp_path)
    before = made(store)
    store.objects |= {key: objects[key] for key in late}
    [manifest] = (await compact(store, tmp_path)).committed
    assert (manifest.hr, manifest.generation, [given.key for given in manifest.inputs]) == ("13", 1, late)
    assert {key: store.objects[key] for key in before} == before
    put(tmp_path / "out", made(store))
    [(count,)] = duckdb.connect().execute(f"SELECT count(*) FROM {files(tmp_path / 'out', 'segments')}").fetchall()
    assert count == sum(key.startswith(layout.segments()) for key in objects)


async def test_a_late_segment_waits_for_the_plan_of_a_killed_run(objects: dict[str, bytes], tmp_path: Path) -> None:
    """Its files may be there already: with other inputs they would be other files, and a row would count twice."""
    late = max(key for key in objects if "/hr=13/" in key)
    kept = {key: body for key, body in objects.items() if "/hr=" not in key or "/hr=13/" in key}
    store = stored({key: body for key, body in kept.items() if key != late})
    store.faults.extend(["none", "none", "none", "unavailable"])
    with pytest.raises(StoreUnavailable):
        await compact(store, tmp_path)
    store.objects[late] = objects[late]
    assert [len(one.inputs) for one in (await compact(store, tmp_path)).committed] == [
        len([k for k in kept if "/hr=" in k]) - 1,
        1,
    ]


async def test_two_compactors_at_once_make_one_ledger(objects: dict[str, bytes], tmp_path: Path) -> None:
    alone, shared = stored(objects), stored(objects)
    await compact(alone, tmp_path / "a")
    await asyncio.gather(compact(shared, tmp_path / "b"), compact(shared, tmp_path / "c"))
    assert made(shared) == made(alone)


async def test_an_hour_is_left_alone_until_its_grace_is_over(objects: dict[str, bytes], tmp_path: Path) -> None:
    """The simulated lives begin 100 seconds before 13:00."""
    store = stored(objects)
    assert (await compact(store, tmp_path, ledgersim.START_NS + 15 * 60 * 10**9)).committed == ()
    done = await compact(store, tmp_path, ledgersim.START_NS + 17 * 60 * 10**9)
    assert [(one.dt, one.hr) for one in done.committed] == [("2026-11-05", "12")]


async def test_damage_is_refused_by_name_and_other_hours_go_on(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = stored(objects)
    [*_, broken] = sorted(key for key in objects if "/hr=13/" in key)
    store.objects[broken] = objects[broken][:-3]
    done = await compact(store, tmp_path)
    assert {(one.kind, one.key) for one in done.refused} == {("damaged", broken)}
    assert "13" not in {one.hr for one in done.committed}
    assert len(done.committed) > 1


@pytest.mark.parametrize(
    ("charge", "posting"),
    [
        (Charge(ledgers.VCPU, "milli-vcpu-ns", 1, 2**63), Posting("boot", ledgers.VCPU, 2**63, 1)),
        (Charge(ledgers.VCPU, "milli-vcpu-ns", 10**38, 5), Posting("boot", ledgers.VCPU, 5, 1)),
        (
            Charge(ledgers.VCPU, "milli-vcpu-ns", 1, 5),
            Posting("boot", ledgers.VCPU, 5, 1, phases=Phases(ready_ns=2**64)),
        ),
    ],
)
async def test_a_number_that_parquet_cannot_hold_is_refused_before_a_plan(
    charge: Charge, posting: Posting, tmp_path: Path
) -> None:
    """A plan that cannot be finished would keep all other hours from being compacted for ever."""
    store = stored(ledgers.container("c", [[charge, posting]]))
    store.objects |= ledgers.container(
        "other",
        [[*ledgers.charges(7, 0), Posting("boot", ledgers.VCPU, 7, 1)]],
        boot_ns=ledgers.T0_NS + ledgers.HOUR_NS,
    )
    [key, _] = store.keys(layout.segments())
    done = await compact(store, tmp_path)
    assert {(one.kind, one.key) for one in done.refused} == {("damaged", key)}
    assert "which no gateway writes" in done.refused[0].message
    assert [one.hr for one in done.committed] == ["13"]
    assert not any("/hr=12/" in found for found in store.keys(layout.COMPACTED))


async def test_a_file_that_was_changed_before_its_manifest_is_not_committed(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    kept = {key: body for key, body in objects.items() if "/hr=" not in key or "/hr=13/" in key}
    store = stored(kept)
    store.faults.extend([*["none"] * 6, "unavailable"])
    with pytest.raises(StoreUnavailable):
        await compact(store, tmp_path)
    [postings] = store.keys(layout.compacted("postings"))
    whole = store.objects[postings]
    again = tmp_path / "again.parquet"
    (tmp_path / "whole.parquet").write_bytes(whole)
    duckdb.connect().execute(f"COPY (FROM '{tmp_path}/whole.parquet') TO '{again}' (FORMAT parquet, COMPRESSION gzip)")
    store.objects[postings] = again.read_bytes()  # as another version of DuckDB might write the same rows
    [manifest] = (await compact(store, tmp_path)).committed
    assert manifest.files[2].sha256 == codec.sha256(again.read_bytes()) != codec.sha256(whole)
    del store.objects[layout.compacted("manifests", manifest.dt, manifest.hr, 0)]
    short = tmp_path / "short.parquet"
    duckdb.connect().execute(f"COPY (FROM '{again}' LIMIT 3) TO '{short}' (FORMAT parquet)")
    store.objects[postings] = short.read_bytes()
    with pytest.raises(ManifestInvalid, match="does not hold what its plan determines"):
        await compact(store, tmp_path)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.randoms(use_true_random=False))
def test_bytes_do_not_depend_on_the_order_of_arrival(
    objects: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, order: Random
) -> None:
    folder = tmp_path_factory.mktemp("any-order")
    put(folder, objects)
    paths = sorted(folder.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz"))
    shuffled = order.sample(paths, len(paths))
    for name, given_paths in (("one", paths), ("other", shuffled)):
        (folder / name).mkdir()
        hourfiles.write(given_paths, folder / name)
    for table in TABLES:
        assert (folder / "one" / f"{table}.parquet").read_bytes() == (
            folder / "other" / f"{table}.parquet"
        ).read_bytes()


def ran(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        command, ["compact", "--store", str(root), "--cache", str(root.parent / "copies"), *arguments]
    )


def test_the_command_says_what_it_did(objects: dict[str, bytes], tmp_path: Path) -> None:
    root = tmp_path / "store"
    put(root, objects)
    first = ran(root)
    assert first.exit_code == 0, first.output
    assert re.search(
        r"^2026-11-05T12:00Z +generation 0: [\d,]+ segments, [\d,]+ requests, \$0\.", first.output, re.MULTILINE
    )
    assert ran(root).output == "nothing to compact: an hour is closed 15 minutes after its end\n"
    assert asyncio.run(_count(root)) == len(list(root.glob("compacted/v1/plans/*/*/*.json")))
    key = max(root.glob("ledger/v1/dt=*/hr=13/*/*.jsonl.gz"))
    plan = codec.decode(next(root.glob("compacted/v1/plans/*/hr=13/*.json")).read_bytes(), Plan)
    assert plan.inputs[-1].key == key.relative_to(root).as_posix()


async def _count(root: Path) -> int:
    return len([info async for info in LocalStore(root).list(layout.compacted("manifests"))])


def test_the_command_fails_where_an_hour_is_refused(objects: dict[str, bytes], tmp_path: Path) -> None:
    root = tmp_path / "store"
    put(root, objects)
    key = min(root.glob("ledger/v1/dt=*/hr=13/*/*.jsonl.gz"))
    key.write_bytes(b"torn")
    result = ran(root, "--format", "json")
    report = json.loads(result.stdout)
    assert (result.exit_code, len(report["refused"])) == (1, 1)
    assert report["refused"][0]["key"] == key.relative_to(root).as_posix()


SQL = {"VARCHAR": "string", "BIGINT": "bigint", "DECIMAL(38,0)": "decimal(38,0)"}
STRUCT = re.compile(r"STRUCT\((.+)\)")
SUMS_OF = {"segments": Segment, "charges": Charge, "postings": Posting}


def athena(kind: str) -> str:
    """DuckDB's name of a type as Athena's."""
    if inner := STRUCT.fullmatch(kind):
        fields = (field.split() for field in inner[1].replace('"', "").split(", "))
        return f"struct<{','.join(f'{name}:{SQL[of]}' for name, of in fields)}>"
    return SQL[kind]


def described(objects: dict[str, bytes], root: Path, table: str) -> dict[str, str]:
    """Columns of one file in order, in Athena's words; the partition's are in the path alone."""
    key = min(key for key in objects if key.startswith(layout.compacted(table)))
    put(root, {key: objects[key]})
    query = f"DESCRIBE SELECT * FROM read_parquet('{root / key}', hive_partitioning = false)"
    return {name: athena(kind) for name, kind, *_ in duckdb.connect().execute(query).fetchall()}


@pytest.mark.parametrize("table", TABLES)
async def test_athenas_tables_have_the_files_columns(table: str, objects: dict[str, bytes], tmp_path: Path) -> None:
    """By name and type, in order."""
    store = stored(objects)
    await compact(store, tmp_path)
    ddl = (Path(__file__).parents[2] / "infra" / "athena" / f"{table}.sql").read_text()
    columns = re.findall(r"^  `(\w+)` (.+?),?$", ddl, re.MULTILINE)
    assert columns == [*described(store.objects, tmp_path, table).items()]
    assert f"LOCATION 's3://BUCKET/{layout.compacted(table)}'" in ddl
    assert re.findall(r"'projection\.(\w+)\.range'", ddl) == ["dt", "hr"]
    assert "${" not in ddl, "Spark and Hive would put one of their own settings there"


LIFE = {"container": "string", "boot_ns": "bigint", "seq": "bigint"}
WIDE = {"quantity", "beyond"}
"""Memory times nanoseconds passes 2**63."""


def expected(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What a line of the contract must have as columns, whoever adds a field to it."""
    columns = {}
    for field in msgspec.structs.fields(kind):
        if field.name == "phases":
            names = (phase.name for phase in msgspec.structs.fields(Phases))
            columns["phases"] = f"struct<{','.join(f'{name}:bigint' for name in names)}>"
        elif isinstance(msgspec.inspect.type_info(field.type), msgspec.inspect.IntType):
            columns[field.name] = "decimal(38,0)" if field.name in WIDE else "bigint"
        else:
            columns[field.name] = "string"
    return columns


@pytest.mark.parametrize(
    ("table", "line"), [("segments", Segment), ("charges", Charge), ("postings", Posting), ("requests", Request)]
)
async def test_files_have_every_field_of_the_contracts_lines(
    table: str, line: type[msgspec.Struct], objects: dict[str, bytes], tmp_path: Path
) -> None:
    store = stored(objects)
    await compact(store, tmp_path)
    wanted = LIFE | expected(line) | ({"sha256": "string"} if line is Segment else {})
    columns = {name: kind for name, kind in wanted.items() if name != "schema_version"}  # one for all of a release
    assert described(store.objects, tmp_path, table) == columns


async def test_sums_have_every_field_that_money_or_the_chain_needs(objects: dict[str, bytes], tmp_path: Path) -> None:
    store = stored(objects)
    await compact(store, tmp_path)
    names = {"type", "last_seq", "segments", "entries", "sha256", *LIFE}
    names |= {name for line in SUMS_OF.values() for name in expected(line)} - {"schema_version", "phases"}
    assert set(described(store.objects, tmp_path, "sums")) == names


async def test_phases_of_boots_and_loads_are_kept(objects: dict[str, bytes], tmp_path: Path) -> None:
    """A posting that has some is read back as it was; one without has NULL."""
    life = ledgers.container(
        "c",
        [[*ledgers.charges(30, 0), *(Posting("boot", ledgers.VCPU, cost, 1, phases=found) for cost, found in PHASED)]],
    )
    [key] = ledgers.segment_keys(life)
    put(tmp_path, life)
    written = hourfiles.write([tmp_path / key], tmp_path)
    rows = duckdb.connect().execute(f"SELECT cost_picousd, phases FROM '{written['postings'][0]}'").fetchall()
    assert rows == [(cost, None if found is None else msgspec.structs.asdict(found)) for cost, found in PHASED]


PHASED = [(10, None), (20, Phases(imports_ns=5, ready_ns=2**62))]


def test_contract_records_read_back() -> None:
    plan = Plan("2026-11-05", "12", 0, ())
    assert codec.decode(codec.encode(plan), Plan) == plan
    assert msgspec.json.decode(codec.encode(plan))["schema_version"] == 1

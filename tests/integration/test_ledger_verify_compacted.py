"""`steelyard ledger verify` over compacted hours, with their segments and without: whole, and then damaged in every way."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import pytest
from click.testing import CliRunner

from gateway.cli.ledger import ledger as command
from gateway.contract import codec, layout
from gateway.contract.compacted import File, Manifest, Plan
from gateway.contract.ledger import Close
from tests.bench import ledgermade
from tests.support import ledgersim

HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: ledgersim.START_NS + 24 * HOUR_NS)


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three lives of one container, the first two of them killed; compacted, with all their segments."""
    folder = tmp_path_factory.mktemp("compacted")
    for key, body in ledgersim.killed_twice().disk.objects.items():
        (folder / "store" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "store" / key).write_bytes(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: ledgersim.START_NS + 24 * HOUR_NS)
        done = CliRunner().invoke(command, ["compact", "--store", str(folder / "store"), "--cache", str(folder / "c")])
    assert done.exit_code == 0, done.output
    return folder / "store"


@pytest.fixture
def root(compacted: Path, tmp_path: Path) -> Path:
    """A ledger whose segments have expired."""
    shutil.copytree(compacted, tmp_path / "store")
    for manifest in manifests(tmp_path / "store").values():
        for given in manifest.inputs:
            (tmp_path / "store" / given.key).unlink()
    return tmp_path / "store"


def verified(root: Path, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(command, ["verify", "--store", str(root), "--format", "json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    verdict = json.loads(result.stdout)
    assert result.exit_code == any(one["is_fault"] for one in verdict["findings"])
    return verdict


def faults(root: Path, *arguments: str) -> set[tuple[str, str]]:
    """Kinds and keys."""
    found = verified(root, *arguments)["findings"]
    return {(one["kind"], one["key"]) for one in found if one["is_fault"]}  # type: ignore[attr-defined]


def manifests(root: Path) -> dict[str, Manifest]:
    paths = sorted(root.glob("compacted/v1/manifests/*/*/*.json"))
    return {path.relative_to(root).as_posix(): codec.decode(path.read_bytes(), Manifest) for path in paths}


def file_of(root: Path, table: str, hr: str = "13") -> str:
    [path] = root.glob(f"compacted/v1/{table}/*/hr={hr}/*.parquet")
    return path.relative_to(root).as_posix()


def manifest_of(root: Path, hr: str = "13") -> tuple[str, Manifest]:
    [(key, manifest)] = [one for one in manifests(root).items() if one[1].hr == hr]
    return key, manifest


def edit(root: Path, change: Callable[[Manifest], Manifest], hr: str = "13") -> str:
    key, manifest = manifest_of(root, hr)
    (root / key).write_bytes(codec.encode(change(manifest)))
    return key


def rewrite(root: Path, table: str, select: str) -> str:
    """Change a file's rows as somebody who knows the format would, manifest and all; the manifest's key."""
    key = file_of(root, table)
    new = root.parent / "new.parquet"
    rows_of = select if " FROM " in select else f"{select} FROM rows_"
    file = f"read_parquet('{root / key}', hive_partitioning = false)"
    query = f"COPY (WITH rows_ AS (FROM {file}) SELECT {rows_of}) TO '{new}' (FORMAT parquet)"
    [(rows,)] = duckdb.connect().execute(query).fetchall()
    body = new.read_bytes()
    (root / key).write_bytes(body)

    def changed(manifest: Manifest) -> Manifest:
        file = File(table, key, codec.sha256(body), len(body), rows)  # type: ignore[arg-type] # a table's name
        return msgspec.structs.replace(
            manifest, files=tuple(file if one.table == table else one for one in manifest.files)
        )

    return edit(root, changed)


def test_a_compacted_ledger_is_whole_with_its_segments_and_without(compacted: Path, root: Path) -> None:
    with_segments, without = verified(compacted), verified(root)
    assert (with_segments.pop("expired"), without.pop("expired")) == (0, without["segments"])
    assert without == with_segments
    assert not any(one["is_fault"] for one in without["findings"])  # type: ignore[attr-defined]
    assert without["unattributed_picousd"]
    charged = sum(manifest.cost_picousd for manifest in manifests(root).values())
    closes = [codec.decode(path.read_bytes(), Close) for path in root.glob("ledger/v1/containers/*/*-close.json")]
    assert without["charged_picousd"] == charged > sum(close.cost_picousd for close in closes) > 0


@pytest.mark.parametrize("table", ["segments", "charges", "postings", "requests", "sums"])
def test_a_flipped_byte_and_a_missing_file_are_named(root: Path, table: str) -> None:
    key = file_of(root, table)
    body = bytearray((root / key).read_bytes())
    body[len(body) // 3] ^= 4
    (root / key).write_bytes(body)
    assert faults(root) == {("damaged", key)}
    (root / key).unlink()
    assert faults(root) == {("missing_file", key)}


def test_of_a_damaged_hour_whose_segments_are_there_only_the_file_is_a_fault(compacted: Path, tmp_path: Path) -> None:
    shutil.copytree(compacted, tmp_path / "store")
    whole = verified(tmp_path / "store")
    key = file_of(tmp_path / "store", "sums")
    (tmp_path / "store" / key).unlink()
    found = verified(tmp_path / "store")
    assert faults(tmp_path / "store") == {("missing_file", key)}
    assert found["charged_picousd"] == whole["charged_picousd"]
    assert found["unattributed_picousd"] == whole["unattributed_picousd"]


def test_an_edited_manifest_is_named(root: Path) -> None:
    key = edit(root, lambda one: msgspec.structs.replace(one, cost_picousd=one.cost_picousd + 1))
    assert faults(root) == {("unbalanced", key)}
    key = edit(root, lambda one: msgspec.structs.replace(one, cost_picousd=one.cost_picousd - 1, requests=1))
    assert faults(root) == {("unbalanced", key)}


def test_an_edited_list_of_segments_is_named(root: Path) -> None:
    before = (root / manifest_of(root)[0]).read_bytes()
    key = edit(root, lambda one: msgspec.structs.replace(one, inputs=one.inputs[1:]))
    assert {("damaged", key), ("duplicate", key)} <= faults(root)
    (root / key).write_bytes(before)
    key = edit(
        root,
        lambda one: msgspec.structs.replace(
            one, inputs=(msgspec.structs.replace(one.inputs[0], sha256="0" * 64), *one.inputs[1:])
        ),
    )
    assert {("damaged", key), ("broken_chain", key)} <= faults(root)
    (root / key).write_bytes(before + b"\n")
    assert ("damaged", key) in faults(root)
    (root / key).write_bytes(before[:-7])
    assert ("damaged", key) in faults(root)
    (root / key).write_bytes(before.replace(b'"schema_version":2', b'"schema_version":9'))
    assert ("newer_version", key) in faults(root)


@pytest.mark.parametrize(
    ("table", "select"),
    [
        ("segments", "* REPLACE ((cost_picousd + 1)::BIGINT AS cost_picousd)"),
        ("charges", "* REPLACE ((cost_picousd + 1)::BIGINT AS cost_picousd)"),
        ("postings", "* REPLACE ((cost_picousd + (account = 'overhead')::INT)::BIGINT AS cost_picousd)"),
        ("postings", "* REPLACE ((requests + (account = 'infer')::INT)::BIGINT AS requests)"),
        ("requests", "* REPLACE ((cost_picousd + 1)::BIGINT AS cost_picousd)"),
        ("requests", "* FROM rows_ LIMIT 5"),
        ("sums", "* REPLACE ((cost_picousd + 1)::DECIMAL(38, 0) AS cost_picousd)"),
        ("sums", "* FROM rows_ LIMIT 1"),
    ],
)
def test_rows_changed_together_with_their_manifest_do_not_add_up(root: Path, table: str, select: str) -> None:
    hr = manifest_of(root)[0]
    assert rewrite(root, table, select) == hr
    assert ("unbalanced", hr) in faults(root)


def test_a_price_changed_everywhere_is_not_the_price_books(root: Path) -> None:
    """Charges, postings, headers, sums and manifest agree with each other; the chain's digests and the tariff do not agree."""
    for table in ("segments", "charges", "postings", "requests", "sums"):
        kind = "DECIMAL(38, 0)" if table == "sums" else "BIGINT"
        key = rewrite(root, table, f"* REPLACE ((2 * cost_picousd)::{kind} AS cost_picousd)")
    edit(root, lambda one: msgspec.structs.replace(one, cost_picousd=2 * one.cost_picousd))
    kinds = {kind for kind, _ in faults(root)}
    assert "wrong_charge" in kinds
    assert ("unbalanced", key) not in faults(root)


def test_an_hour_that_is_there_twice_is_named(root: Path) -> None:
    """As a second generation with the same segments, and as a copy of the files alone, which engines would count."""
    key, manifest = manifest_of(root)
    files = []
    for file in manifest.files:
        again = layout.compacted(file.table, manifest.dt, manifest.hr, 1)
        shutil.copyfile(root / file.key, root / again)
        files.append(msgspec.structs.replace(file, key=again))
    copied = {file.key for file in files}
    assert faults(root) == {("duplicate", key) for key in copied}
    second = msgspec.structs.replace(manifest, generation=1, files=tuple(files))
    plan = Plan(manifest.dt, manifest.hr, 1, manifest.inputs)
    again = layout.compacted("manifests", manifest.dt, manifest.hr, 1)
    (root / layout.compacted("plans", manifest.dt, manifest.hr, 1)).write_bytes(codec.encode(plan))
    (root / again).write_bytes(codec.encode(second))
    assert ("duplicate", again) in faults(root)
    shutil.copyfile(root / key, root / again)
    assert ("misplaced", again) in faults(root)


def test_an_hour_that_is_gone_is_a_gap(root: Path) -> None:
    """Its segments too: the numbers of the others and the close record tell, and its part of the bill is nobody's then."""
    whole = verified(root)
    hr = min(manifest.hr for manifest in manifests(root).values())  # of a life that goes on in the next
    for kind in ("plans", "manifests", "segments", "charges", "postings", "requests", "sums"):
        shutil.rmtree(next(root.glob(f"compacted/v1/{kind}/*/hr={hr}")))
    found = verified(root)
    assert {kind for kind, _ in faults(root)} == {"gap"}
    assert found["charged_picousd"] != whole["charged_picousd"]
    sums = [one["charged_picousd"] + one["unattributed_picousd"] for one in (whole, found)]  # type: ignore[operator]
    assert sums[0] == sums[1]


def test_a_generation_that_is_gone_is_a_gap(root: Path) -> None:
    _, manifest = manifest_of(root)
    second = layout.compacted("plans", manifest.dt, manifest.hr, 2)
    (root / second).write_bytes(codec.encode(Plan(manifest.dt, manifest.hr, 2, ())))
    missing = layout.compacted("manifests", manifest.dt, manifest.hr, 1)
    assert faults(root) == {("gap", missing)}


def test_what_a_stopped_run_left_is_a_note(root: Path) -> None:
    _, manifest = manifest_of(root)
    plan = layout.compacted("plans", manifest.dt, manifest.hr, 1)
    (root / plan).write_bytes(codec.encode(Plan(manifest.dt, manifest.hr, 1, ())))
    (root / layout.compacted("charges", manifest.dt, manifest.hr, 1)).write_bytes(b"half")
    (root / "compacted/v1/notes.txt").write_bytes(b"")
    assert faults(root) == set()
    found = verified(root)["findings"]
    notes = {(one["kind"], one["key"]) for one in found}  # type: ignore[attr-defined]
    assert {("unfinished", plan), ("foreign_object", "compacted/v1/notes.txt")} <= notes


def test_a_segment_changed_after_it_was_compacted_is_named(compacted: Path, tmp_path: Path) -> None:
    shutil.copytree(compacted, tmp_path / "store")
    _, manifest = manifest_of(tmp_path / "store")
    one, other = (tmp_path / "store" / given.key for given in manifest.inputs[:2])
    one.write_bytes(other.read_bytes())
    assert ("broken_chain", manifest.inputs[0].key) in faults(tmp_path / "store")
    one.write_bytes(b"torn")
    found = verified(tmp_path / "store")
    assert faults(tmp_path / "store") == {("damaged", manifest.inputs[0].key)}
    assert found["charged_picousd"] == verified(compacted)["charged_picousd"]  # its compacted copy is whole


def test_a_period_reads_its_hours_alone(root: Path) -> None:
    (root / file_of(root, "requests", "13")).unlink()
    assert faults(root, "--until", "2026-11-05T13:00") == set()
    assert [kind for kind, _ in faults(root, "--since", "2026-11-05T13:30")] == ["missing_file"]


def test_the_benchs_ledger_is_whole(tmp_path: Path) -> None:
    """What is measured with is a ledger like any other."""
    ledgermade.make(tmp_path, hours=2, per_segment=5, jobs=1)
    verdict = verified(tmp_path)
    assert verdict["findings"] == []
    assert (verdict["segments"], verdict["requests"]) == (720, 3600)
    assert (verdict["requests"], verdict["charged_picousd"]) == ledgermade.total(tmp_path)

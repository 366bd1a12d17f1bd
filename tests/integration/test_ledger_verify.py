"""`steelyard ledger verify` over ledgers of the real writer, whole and then damaged in every way there is a word for."""

import gzip
import itertools
import json
import time
from pathlib import Path
from random import Random

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.accounting import segment
from gateway.cli.ledger import ledger as command
from gateway.contract import codec, layout
from gateway.contract.ledger import Close, Ended, Open, Posting
from tests.support import ledgersim, meters
from tests.support.ledgersim import START_NS

HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day after the simulated lives."""
    monkeypatch.setattr(time, "time_ns", lambda: START_NS + 24 * HOUR_NS)


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    """Three lives of one container, the first two of them killed."""
    return ledgersim.killed_twice().disk.objects


@pytest.fixture
def root(tmp_path: Path, objects: dict[str, bytes]) -> Path:
    for key, body in objects.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return tmp_path


def verified(root: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(command, ["verify", "--store", str(root), "--format", "json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def faults(root: Path, *arguments: str) -> list[tuple[str, str]]:
    """Kinds and keys. Exit code and faults always agree."""
    code, verdict = verified(root, *arguments)
    found = [(one["kind"], one["key"]) for one in verdict["findings"] if one["is_fault"]]  # type: ignore[attr-defined]
    assert code == (1 if found else 0)
    return found


def segments(root: Path, *, closed: bool | None = None) -> list[str]:
    """Keys in order; of the closed life, or of killed ones."""
    closes = {path.name.removesuffix("-close.json") for path in root.glob("ledger/v1/containers/*/*-close.json")}
    keys = sorted(path.relative_to(root).as_posix() for path in root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz"))
    return [key for key in keys if closed is None or (key.rpartition("/")[2].partition("-")[0] in closes) == closed]


def in_order(keys: list[str]) -> list[str]:
    return sorted(keys, key=lambda key: key.rpartition("/")[2])


def repack(root: Path, key: str, old: bytes, new: bytes) -> None:
    """Change a segment's lines as somebody who knows gzip would."""
    path = root / key
    plain = gzip.decompress(path.read_bytes())
    assert old in plain
    path.write_bytes(gzip.compress(plain.replace(old, new, 1), 1, mtime=0))


def test_a_whole_ledger_is_whole_and_says_what_nobody_claims(root: Path) -> None:
    code, verdict = verified(root)
    opened, closed = life(root)
    assert (code, verdict["lives"]) == (0, 3)
    killed = [meters.bill_picousd(until - boot) for boot, until in itertools.pairwise(opened)]
    bill = sum(sum(one.values()) for one in [*killed, meters.life_picousd(closed - opened[-1])])
    assert verdict["charged_picousd"] + verdict["unattributed_picousd"] == bill  # type: ignore[operator]
    notes = [one for one in verdict["findings"] if one["kind"] == "unattributed"]  # type: ignore[attr-defined]
    assert len(notes) == 2
    assert not any(one["is_fault"] for one in notes)
    shown = CliRunner().invoke(command, ["verify", "--store", str(root)])
    assert (shown.exit_code, shown.output.splitlines()[-1]) == (0, "the ledger is whole")


def life(root: Path) -> tuple[list[int], int]:
    """When each life began, and the last one ended."""
    opens = [codec.decode(path.read_bytes(), Open) for path in root.glob("ledger/v1/containers/*/*-open.json")]
    [close] = root.glob("ledger/v1/containers/*/*-close.json")
    return sorted(one.boot_ns for one in opens), codec.decode(close.read_bytes(), Close).closed_ns


@pytest.mark.parametrize("closed", [True, False])
def test_any_flipped_bit_of_any_segment_is_named(root: Path, closed: bool) -> None:
    """Where no segment follows, only a few bits of the gzip header say nothing and are covered by nothing."""
    random = Random(closed)
    keys = in_order(segments(root, closed=closed))
    for _ in range(40):
        key = random.choice(keys)
        body = bytearray((root / key).read_bytes())
        at = random.choice([*range(8), *range(10, len(body))])
        body[at] ^= 1 << random.randrange(8)
        original = (root / key).read_bytes()
        (root / key).write_bytes(body)
        found = faults(root)
        assert key in {key for _, key in found}, (at, found)
        (root / key).write_bytes(original)
    assert faults(root) == []


def test_any_dropped_segment_but_a_killed_lifes_last_is_a_gap(root: Path) -> None:
    lasts = {}
    for key in in_order(segments(root, closed=False)):
        lasts[key.rpartition("/")[2].partition("-")[0]] = key
    for key in segments(root):
        body = (root / key).read_bytes()
        (root / key).unlink()
        kinds = {kind for kind, _ in faults(root)}
        assert kinds == (set() if key in lasts.values() else {"gap"}), key
        (root / key).write_bytes(body)


def test_a_dropped_segments_cost_is_unattributed(root: Path) -> None:
    _, before = verified(root)
    key = in_order(segments(root, closed=True))[1]
    cost = segment.decode((root / key).read_bytes()).header.cost_picousd
    (root / key).unlink()
    _, after = verified(root)
    assert after["unattributed_picousd"] == before["unattributed_picousd"] + cost  # type: ignore[operator]
    assert after["charged_picousd"] == before["charged_picousd"] - cost  # type: ignore[operator]


def test_an_edited_price_is_named_by_its_books_digest(root: Path) -> None:
    [book] = root.glob("prices/sha256/*")
    original = book.read_bytes()
    book.write_bytes(original.replace(b"0.04048", b"0.04047"))
    key = book.relative_to(root).as_posix()
    assert faults(root) == [("edited_price", key)]
    book.unlink()
    assert faults(root) == [("edited_price", key)]


def test_a_charge_that_its_price_does_not_make_is_named(root: Path) -> None:
    """A whole segment rewritten with consistent sums still contradicts the price book."""
    key = in_order(segments(root, closed=False))[0]
    parsed = segment.decode((root / key).read_bytes())
    charge = parsed.charges[1]
    posting = next(line for line in parsed.postings if line.sku == charge.sku)
    repack(
        root,
        key,
        b'"cost_picousd":%d' % parsed.header.cost_picousd,
        b'"cost_picousd":%d' % (parsed.header.cost_picousd + 1),
    )
    for line in (charge, posting):
        before = msgspec.json.encode(line)
        after = msgspec.json.encode(msgspec.structs.replace(line, cost_picousd=line.cost_picousd + 1))
        repack(root, key, before, after)
    assert segment.discrepancies(segment.decode((root / key).read_bytes())) == ()
    assert ("wrong_charge", key) in faults(root)


def test_sums_that_do_not_balance_are_named(root: Path) -> None:
    key = in_order(segments(root))[-1]
    parsed = segment.decode((root / key).read_bytes())
    posting = next(line for line in parsed.postings if isinstance(line, Posting) and line.account == "idle_mem")
    wrong = msgspec.structs.replace(posting, cost_picousd=posting.cost_picousd + 1)
    repack(root, key, msgspec.json.encode(posting), msgspec.json.encode(wrong))
    assert ("unbalanced", key) in faults(root)


def test_a_copy_of_a_segment_is_a_duplicate(root: Path) -> None:
    key = in_order(segments(root))[2]
    hour = key.split("/")[3]
    copy = key.replace(hour, "hr=03")
    (root / copy).parent.mkdir(parents=True)
    (root / copy).write_bytes((root / key).read_bytes())
    assert {kind for kind, _ in faults(root)} == {"duplicate", "misplaced"}


def test_a_segment_after_the_close_is_one_too_many(root: Path) -> None:
    key = in_order(segments(root, closed=True))[-1]
    number = int(key[-21:-9])
    parsed = segment.decode((root / key).read_bytes())
    header = msgspec.structs.replace(
        parsed.header, seq=number + 1, previous_sha256=codec.sha256((root / key).read_bytes())
    )
    lines = [header, *parsed.charges, *parsed.postings, *parsed.requests]
    extra = key.replace(f"{number:012d}", f"{number + 1:012d}")
    (root / extra).write_bytes(gzip.compress(msgspec.json.Encoder().encode_lines(lines), 1, mtime=0))
    assert {"broken_chain", "duplicate"} <= {kind for kind, _ in faults(root)}


def test_a_ledger_of_a_newer_version_is_said_to_be_that(root: Path) -> None:
    key = in_order(segments(root))[-1]
    repack(root, key, b'"schema_version":1', b'"schema_version":2')
    [close] = root.glob("ledger/v1/containers/*/*-close.json")
    close.write_bytes(close.read_bytes().replace(b'"schema_version":1', b'"schema_version":9'))
    assert sorted(faults(root)) == [
        ("newer_version", close.relative_to(root).as_posix()),
        ("newer_version", key),
    ]


def test_records_that_were_touched_are_named(root: Path) -> None:
    path = min(root.glob("ledger/v1/containers/*/*-open.json"))
    original = path.read_bytes()
    key = path.relative_to(root).as_posix()
    path.write_bytes(original + b" ")
    assert faults(root) == [("damaged", key)]
    path.write_bytes(original[:-5])
    assert faults(root) == [("damaged", key)]
    path.write_bytes(original.replace(b'"container":"c0"', b'"container":"c1"'))
    assert faults(root) == [("misplaced", key)]
    path.unlink()
    assert [kind for kind, _ in faults(root)] == ["never_opened"]


def test_clocks_that_jump_a_day_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward: a life seen in the future. Back: the next life of the container begins before the last one ended."""
    monkeypatch.setattr(time, "time_ns", lambda: START_NS - 24 * HOUR_NS)
    assert {kind for kind, _ in faults(root)} == {"clock_jump"}
    monkeypatch.setattr(time, "time_ns", lambda: START_NS + 48 * HOUR_NS)
    first = codec.decode(min(root.glob("ledger/v1/containers/*/*-open.json")).read_bytes(), Open)
    boot_ns = first.boot_ns + 1
    back = msgspec.structs.replace(first, boot_ns=boot_ns, opened_ns=boot_ns)
    (root / layout.container_open("c0", boot_ns)).write_bytes(codec.encode(back))
    assert [kind for kind, _ in faults(root)] == ["clock_jump"]


def test_the_platforms_word_ends_a_killed_life(root: Path) -> None:
    """A container that never came back: its bill ends where its platform says, not with its last segment."""
    for path in root.glob("ledger/v1/containers/c0/*"):
        if not path.name.startswith(str(START_NS)):
            path.unlink()
    for key in segments(root):
        if not key.rpartition("/")[2].startswith(str(START_NS)):
            (root / key).unlink()
    _, before = verified(root)
    last_ns = max(segment.decode((root / key).read_bytes()).header.to_ns for key in segments(root))
    seen = sum(meters.life_picousd(last_ns - START_NS).values())  # whole seconds, for all that is known
    assert before["charged_picousd"] + before["unattributed_picousd"] == seen  # type: ignore[operator]
    ended_ns = START_NS + 7 * HOUR_NS + 123_456_789
    arguments = ["--store", str(root), "--ended", "2026-11-05T19:58:20.123456", "--evidence", "task stopped"]
    result = CliRunner().invoke(command, ["end", "c0", *arguments])
    assert result.exit_code == 0, result.output
    record = codec.decode((root / layout.container_ended("c0", START_NS)).read_bytes(), Ended)
    assert (record.ended_ns, record.evidence) == (ended_ns // 1000 * 1000, "task stopped")
    _, after = verified(root)
    bill = sum(meters.life_picousd(record.ended_ns - START_NS).values())
    assert after["charged_picousd"] + after["unattributed_picousd"] == bill  # type: ignore[operator]
    assert CliRunner().invoke(command, ["end", "c0", *arguments]).exit_code == 0  # the same word twice is one
    other = CliRunner().invoke(command, ["end", "c0", *arguments[:3], "2026-11-06", "--evidence", "x"])
    assert other.exit_code == 2
    assert "says already" in other.output


def test_an_end_that_is_yet_to_come_is_refused(root: Path) -> None:
    """It would stay, and bill all the time until then."""
    arguments = ["end", "c0", "--store", str(root), "--ended", "2036-11-06", "--evidence", "a slip of the pen"]
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, "2036-11-06T00:00:00Z is yet to come" in result.output) == (2, True)
    assert list(root.glob("ledger/v1/containers/*/*-ended.json")) == []


def test_ending_what_closed_or_never_was_is_refused(root: Path) -> None:
    def refused(container: str) -> Result:
        arguments = ["end", container, "--store", str(root), "--ended", "2026-11-06", "--evidence", "x"]
        return CliRunner().invoke(command, arguments)

    assert "closed by itself" in refused("c0").output
    assert "no container 'c9'" in refused("c9").output
    assert refused("c9").exit_code == 2


def test_one_container_or_period_is_read_alone(root: Path) -> None:
    keys = in_order(segments(root))
    (root / keys[0]).write_bytes(b"torn")
    assert faults(root, "--container", "other") == []
    assert faults(root, "--since", "2026-11-06") == []
    assert [key for _, key in faults(root, "--container", "c0") if key] == [keys[0]]
    assert CliRunner().invoke(command, ["verify", "--since", "2026-11-06", "--until", "2026-11-05"]).exit_code == 2


def test_an_empty_ledger_is_whole(tmp_path: Path) -> None:
    assert faults(tmp_path) == []


def test_a_foreign_key_is_a_note_without_control_characters(root: Path) -> None:
    (root / "ledger/v1/sur\x1bprise").write_bytes(b"")
    shown = CliRunner().invoke(command, ["verify", "--store", str(root)])
    assert shown.exit_code == 0
    assert "\x1b" not in shown.output

"""Spilled files: whole or absent, found by the next life only, and named when they are not what they should be."""

import errno
import logging
import os
from pathlib import Path

import pytest

from gateway.accounting import parcel
from gateway.accounting.parcel import MAGIC, Parcel
from gateway.accounting.spill import SUMS_BYTES_MAX, Spill
from gateway.accounting.spillfolder import ASIDE, SpillRoot
from gateway.contract import codec, layout
from gateway.errors import ManifestInvalid, WrittenByNewer

URL = "s3://bucket"


def a_segment(seq: int, body: bytes = b"the bytes\nof a segment") -> Parcel:
    return Parcel("segment", layout.segment(from_ns=0, container="c0", boot_ns=7, seq=seq), body, cost_picousd=5)


@pytest.fixture
def root(tmp_path: Path) -> SpillRoot:
    return SpillRoot(tmp_path, URL)


def a_spill(root: SpillRoot, boot_ns: int = 7, bytes_max: int = 1 << 20) -> Spill:
    return Spill(root.own("c0", boot_ns), bytes_max=bytes_max)


def leave(root: SpillRoot, *parcels: Parcel, boot_ns: int = 7) -> Path:
    """What a life leaves; the folder."""
    spill = a_spill(root, boot_ns)
    assert all(spill.write(number, one) for number, one in enumerate(parcels))
    spill.close()
    return Path(spill.name)


def test_a_parcel_is_read_as_it_was_written() -> None:
    for one in (a_segment(3), Parcel("price book", layout.price_book(codec.sha256(b"book")), b"book")):
        assert parcel.unpacked(parcel.packed(one), what="file") == one


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no spilled ledger object"),
        (b"PNG", "no spilled ledger object"),
        (MAGIC, "is not valid"),
        (parcel.packed(a_segment(1))[:-1], "torn"),
        (parcel.packed(a_segment(1)) + b"x", "torn"),
        (parcel.packed(Parcel("segment", "models/digits/versions/1.json", b"x")), "which no ledger writer creates"),
        (parcel.packed(Parcel("segment", "ledger/v1/training/run/0001.json", b"x")), "which no ledger writer creates"),
        (parcel.packed(Parcel("price book", layout.price_book("0" * 64), b"x")), "which no ledger writer creates"),
    ],
)
def test_what_is_no_whole_parcel_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ManifestInvalid, match=f"some/file.*{message}"):
        parcel.unpacked(data, what="some/file")


def test_a_parcel_of_a_newer_version_says_so() -> None:
    newer = parcel.packed(a_segment(1)).replace(b'"schema_version":1', b'"schema_version":2')
    with pytest.raises(WrittenByNewer, match="upgrade"):
        parcel.unpacked(newer, what="file")


def test_the_next_life_finds_what_the_last_one_left_in_its_order(root: SpillRoot, tmp_path: Path) -> None:
    leave(root, a_segment(0), a_segment(1))
    [shelf] = root.left()
    spill = Spill(shelf, bytes_max=0)
    assert [(one.number, one.key, one.cost_picousd) for one in spill.find()] == [
        (0, a_segment(0).key, 5),
        (1, a_segment(1).key, 5),
    ]
    assert spill.read(1) == a_segment(1)
    for number in (0, 1):
        spill.remove(number)
    spill.close()
    assert spill.used_bytes == 0
    assert root.left() == []
    assert [path.name for path in tmp_path.rglob("*.spilled")] == []


def test_nobody_takes_what_belongs_to_a_life_that_lives_or_to_another_store(root: SpillRoot, tmp_path: Path) -> None:
    alive = a_spill(root, boot_ns=8)
    assert alive.write(0, a_segment(0))
    leave(SpillRoot(tmp_path, "s3://another"), a_segment(0))
    assert root.left() == []
    alive.close()
    [shelf] = root.left()
    assert root.left() == []  # taken
    assert shelf.name == alive.name
    shelf.close()


def test_what_a_crash_left_unfinished_is_removed(root: SpillRoot) -> None:
    folder = leave(root, a_segment(0))
    (folder / ("0" * 32)).write_bytes(b"half")
    [shelf] = root.left()
    assert len(Spill(shelf, bytes_max=0).find()) == 1
    shelf.close()
    assert not (folder / ("0" * 32)).exists()


def test_torn_foreign_and_newer_files_are_named_and_set_aside(
    root: SpillRoot, caplog: pytest.LogCaptureFixture
) -> None:
    folder = leave(root, a_segment(0), a_segment(1), a_segment(2))
    whole = (folder / "000000000002.spilled").read_bytes()
    (folder / "000000000001.spilled").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("mine")
    (folder / "000000000009.spilled").write_bytes(whole.replace(b'"schema_version":1', b'"schema_version":9'))
    [shelf] = root.left()
    spill = Spill(shelf, bytes_max=0)
    assert [one.number for one in spill.find()] == [0, 2]
    spill.close()
    assert spill.set_aside == 3
    for name in ("000000000001.spilled", "notes.txt", "000000000009.spilled"):
        assert f"{folder}/{name}" in caplog.text
        assert (folder.parent / ASIDE / f"{folder.name}-{name}").exists()
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 3


def test_detail_has_a_cap_and_sums_have_none(root: SpillRoot) -> None:
    spill = a_spill(root, bytes_max=100_000)
    detail = a_segment(0, os.urandom(SUMS_BYTES_MAX + 1))
    assert spill.has_room(len(detail.body))
    assert spill.write(0, detail)
    assert not spill.has_room(len(detail.body))
    assert spill.has_room(1000)
    assert spill.write(1, a_segment(1, os.urandom(SUMS_BYTES_MAX)))
    assert spill.used_bytes > spill.capacity_bytes == 100_000
    spill.close()


def test_a_failed_fsync_is_the_end_of_that_file_and_of_nothing_else(
    root: SpillRoot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spill = a_spill(root)

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        assert [spill.write(0, a_segment(0)), spill.write(0, a_segment(0))] == [False, False]
    assert (spill.failures, spill.is_failing, spill.capacity_bytes, spill.holds(0)) == (2, True, 0, False)
    assert spill.write(0, a_segment(0))
    assert (spill.is_failing, spill.holds(0)) == (False, True)
    spill.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]  # once each


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    root = SpillRoot(tmp_path / "file", URL)
    spill = a_spill(root)
    assert not spill.write(0, a_segment(0))
    assert root.left() == []
    assert "takes no files" in caplog.text
    spill.close()


def test_a_file_that_went_missing_is_a_named_loss(root: SpillRoot, caplog: pytest.LogCaptureFixture) -> None:
    spill = a_spill(root)
    assert spill.write(0, a_segment(0))
    (Path(spill.name) / "000000000000.spilled").unlink()
    assert spill.read(0) is None
    spill.close()
    assert "will be reported as unattributed" in caplog.text

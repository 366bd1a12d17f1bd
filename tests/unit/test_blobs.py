"""Blobs on local disk: fetched whole or not at all, verified, in parts side by side, within a bound that processes share."""

import asyncio
import contextlib
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.contract import layout
from gateway.contract.ledger import Phases
from gateway.contract.manifest import File
from gateway.errors import CacheUnusable, DigestMismatch, StoreUnavailable
from gateway.objectstore.local import LocalStore
from gateway.repository import blobs
from gateway.repository.blobs import BlobCache
from gateway.repository.cachefolder import CacheFolder
from tests.support.memorystore import MemoryStore
from tests.support.repositories import until

SMALL = b"small " * 1000
LARGE = bytes(range(256)) * (80 * 1024)  # 20 MiB: three parts
MIB = 1 << 20


def described(body: bytes, name: str = "model.onnx") -> File:
    return File(name, hashlib.sha256(body).hexdigest(), len(body), "application/onnx", "model")


class Parts(MemoryStore):
    """Counts range reads, and how many were in flight at once; `failures` many of them break, `gate` holds them up."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = self.running = self.running_max = self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
        self.ranges += 1
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        try:
            await self.gate.wait()
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("the connection broke")
            return await super().get_range(key, start, stop)
        finally:
            self.running -= 1


async def stored(store: Any, body: bytes, file: File | None = None) -> File:
    file = file or described(body)
    await store.put_if_absent(layout.blob("tiny", file.sha256), body)
    return file


def cache(store: Any, folder: Path, *, bytes_max: int = 100 * MIB, parts_max: int = 2) -> BlobCache:
    return BlobCache(store, folder / "cache", bytes_max=bytes_max, parts_max=parts_max)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache").iterdir() if path.name != ".lock")


async def fetched(blobs: BlobCache, file: File) -> bytes:
    async with blobs.held("tiny", file, Phases()) as path:
        return path.read_bytes()


@pytest.mark.parametrize("body", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_blob_is_downloaded_once_and_is_what_was_promised(tmp_path: Path, body: bytes) -> None:
    store = Parts()
    file = await stored(store, body)
    for _ in range(2):
        assert await fetched(cache(store, tmp_path), file) == body
    store.is_down = True
    assert await fetched(cache(store, tmp_path), file) == body
    assert names(tmp_path) == [f"{file.sha256}-model.onnx"]
    assert store.ranges == (3 if body is LARGE else 0)


async def test_parts_come_side_by_side_within_their_bound(tmp_path: Path) -> None:
    store = Parts()
    files = [await stored(store, LARGE[at:]) for at in range(3)]
    one = cache(store, tmp_path, parts_max=4)
    store.gate.clear()
    downloads = asyncio.gather(*(fetched(one, file) for file in files))
    await until(lambda: store.running == 4)
    store.gate.set()
    assert [len(body) for body in await downloads] == [file.size for file in files]
    assert store.running_max == 4


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "missing"])
async def test_what_is_not_as_promised_is_refused_and_leaves_nothing(tmp_path: Path, body: bytes, damage: str) -> None:
    file = described(body)
    wrong = {"flipped": b"X" + body[1:], "shorter": body[:-1], "longer": body + b"X"}
    for store in (Parts(), LocalStore(tmp_path / "local")):
        (tmp_path / "local").mkdir(exist_ok=True)
        if damage in wrong:
            await stored(store, wrong[damage], file)
        with pytest.raises(DigestMismatch, match=r"model\.onnx"):
            await fetched(cache(store, tmp_path), file)
        assert names(tmp_path) == []


async def test_a_broken_part_is_fetched_again_and_a_store_that_stays_away_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "PART_BACKOFF_S", 0.0)
    store = Parts()
    file = await stored(store, LARGE)
    store.failures = 100
    with pytest.raises(StoreUnavailable, match="broke"):
        await fetched(cache(store, tmp_path), file)
    assert names(tmp_path) == []
    store.failures, store.ranges = 2, 0
    assert await fetched(cache(store, tmp_path), file) == LARGE
    assert store.ranges == 5


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    class Stuck(Parts):
        async def get_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
            if start:
                begun.set()
                await asyncio.Event().wait()
            return await super().get_range(key, start, stop)

    begun, store = asyncio.Event(), Stuck()
    file = await stored(store, LARGE)
    task = asyncio.create_task(fetched(cache(store, tmp_path), file))
    await begun.wait()
    assert [name[:9] for name in names(tmp_path)] == [".partial-"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == []


async def test_a_file_that_changed_on_disk_is_fetched_again(tmp_path: Path) -> None:
    store = Parts()
    file = await stored(store, SMALL)
    await fetched(cache(store, tmp_path), file)
    (tmp_path / "cache" / names(tmp_path)[0]).write_bytes(b"altered")
    assert await fetched(cache(store, tmp_path), file) == SMALL


async def test_a_store_on_the_same_disk_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = LocalStore(tmp_path / "store")
    file = await stored(store, LARGE)
    async with cache(store, tmp_path).held("tiny", file, Phases()) as path:
        assert path.suffix == ".onnx"
        assert path.samefile(store.path(layout.blob("tiny", file.sha256)))
        assert path.read_bytes() == LARGE
    async with cache(store, tmp_path).held("tiny", file, Phases()) as path:  # and again, by another process
        assert path.read_bytes() == LARGE
    assert len(names(tmp_path)) == 1


async def test_a_store_on_another_disk_is_copied(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if _device(Path(other)) == _device(tmp_path):
            pytest.skip("there is only one file system here")
        store = LocalStore(Path(other))
        file = await stored(store, LARGE)
        async with cache(store, tmp_path).held("tiny", file, Phases()) as path:
            assert not path.samefile(store.path(layout.blob("tiny", file.sha256)))
            assert path.read_bytes() == LARGE


async def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_bytes(bytes(5 * MIB))
    store = Parts()
    for number in range(3):
        await fetched(cache(store, tmp_path, bytes_max=MIB), await stored(store, bytes([number]) * MIB))
    assert "thesis.txt" in names(tmp_path)
    assert len(names(tmp_path)) == 2


async def test_the_least_recently_used_files_make_room(tmp_path: Path) -> None:
    store = Parts()
    files = [await stored(store, bytes([number]) * MIB) for number in range(4)]
    one = cache(store, tmp_path, bytes_max=3 * MIB)
    for number in (0, 1, 2):
        await fetched(one, files[number])
        _age(tmp_path, files[number], seconds=10 - number)
    await fetched(one, files[0])  # used again
    await fetched(one, files[3])
    kept = {name[:64] for name in names(tmp_path)}
    assert kept == {files[number].sha256 for number in (0, 2, 3)}


async def test_a_file_in_use_is_not_deleted(tmp_path: Path) -> None:
    store = Parts()
    first, second = [await stored(store, bytes([number]) * MIB) for number in range(2)]
    async with cache(store, tmp_path, bytes_max=MIB).held("tiny", first, Phases()) as path:
        with pytest.raises(CacheUnusable, match=r"1,048,576 bytes do not fit beside the 1,048,576 in use"):
            await fetched(cache(store, tmp_path, bytes_max=MIB), second)
        assert path.exists()
    assert len(await fetched(cache(store, tmp_path, bytes_max=MIB), second)) == MIB
    assert not path.exists()


@pytest.mark.parametrize("was_damaged", [False, True])
async def test_of_two_that_fetch_one_blob_at_once_neither_loses_the_file_it_holds(
    tmp_path: Path, was_damaged: bool
) -> None:
    first, second = Parts(), Parts()
    file = await stored(first, LARGE)
    await stored(second, LARGE)
    if was_damaged:
        await fetched(cache(first, tmp_path), file)
        (tmp_path / "cache" / names(tmp_path)[0]).write_bytes(b"altered")
    first.gate.clear()
    second.gate.clear()
    async with contextlib.AsyncExitStack() as used_first, contextlib.AsyncExitStack() as used_second:
        one, other = (
            asyncio.create_task(used.enter_async_context(cache(store, tmp_path).held("tiny", file, Phases())))
            for store, used in ((first, used_first), (second, used_second))
        )
        await until(lambda: first.running and second.running)
        for store, task in ((first, one), (second, other)):
            store.gate.set()
            path = await task
        await used_second.aclose()
        larger = await stored(first, bytes(20 * MIB))
        with pytest.raises(CacheUnusable, match="in use"):
            await fetched(cache(first, tmp_path, bytes_max=30 * MIB), larger)
        assert path.read_bytes() == LARGE
    assert names(tmp_path) == [path.name]


async def test_a_file_larger_than_the_cache_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    store = Parts()
    file = await stored(store, LARGE)
    with pytest.raises(
        CacheUnusable, match=r"20,971,520 bytes does not fit \(repository.cache_bytes_max is 1,048,576\)"
    ):
        await fetched(cache(store, tmp_path, bytes_max=MIB), file)
    assert store.ranges == 0


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_a_disk_that_takes_no_more_is_a_sentence_and_leaves_nothing(tmp_path: Path, body: bytes) -> None:
    store = Parts()
    file = await stored(store, body)
    with _files_of_at_most(1000), pytest.raises(CacheUnusable, match=r"cache .*: File too large"):
        await fetched(cache(store, tmp_path), file)
    assert names(tmp_path) == []
    assert await fetched(cache(store, tmp_path), file) == body


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    async def fetch() -> None:
        store = Parts()
        await fetched(cache(store, tmp_path), await stored(store, SMALL))

    with _process(WRITER, tmp_path) as killed, _process(WRITER, tmp_path):
        assert [name[:9] for name in names(tmp_path)] == [".partial-", ".partial-"]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        asyncio.run(fetch())
        assert [name.startswith(".partial-") for name in names(tmp_path)] == [True, False]


WRITER = """
import sys, time
from pathlib import Path
from gateway.repository.cachefolder import CacheFolder
partial = CacheFolder(Path(sys.argv[1]), bytes_max=10_000_000).partial(500_000)
print("ready", flush=True)
time.sleep(60)
"""


def test_processes_share_the_bound(tmp_path: Path) -> None:
    """Four at once write 40 files each through a folder that holds four."""
    with contextlib.ExitStack() as started:
        processes = [started.enter_context(_process(FILLER, tmp_path)) for _ in range(4)]
        assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert len(names(tmp_path)) == 4


FILLER = """
import contextlib, os, sys
from pathlib import Path
from gateway.repository.cachefolder import CacheFolder
print("ready", flush=True)
root, worst = Path(sys.argv[1]), 0
folder = CacheFolder(root, bytes_max=3_000_000)
for number in range(40):
    partial = folder.partial(700_000)
    partial.write(bytes(700_000), 0)
    with folder._locked():
        sizes = []
        for path in root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
    assert sum(sizes) <= 3_000_000
    folder.commit(partial, f"{os.getpid():064x}-{number}", "").close()
"""


@contextlib.contextmanager
def _process(code: str, folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """One that uses the same folder, and has begun to."""
    command = [sys.executable, "-c", code, str(folder / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


async def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can make one")
    store = Parts()
    file = await stored(store, SMALL)
    for has_file in (False, True):  # who owns the folder may put another file there after ours was hashed
        (tmp_path / "cache").mkdir(exist_ok=True)
        if has_file:
            (tmp_path / "cache" / f"{file.sha256}-{file.name}").write_bytes(SMALL)
        os.chown(tmp_path / "cache", 12345, -1)
        with pytest.raises(CacheUnusable, match=r"belongs to another user"):
            await fetched(cache(store, tmp_path), file)


def test_a_name_given_to_another_file_meanwhile_is_not_held(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, bytes_max=MIB)
    assert folder.hold("nothing", described(SMALL).sha256) is None
    (tmp_path / "file").write_bytes(SMALL)
    held = folder.hold("file", described(SMALL).sha256)
    assert held is not None
    held.close()


def _device(path: Path) -> int:
    return path.stat().st_dev


def _age(folder: Path, file: File, *, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / "cache" / f"{file.sha256}-{file.name}", (then, then))


@contextlib.contextmanager
def _files_of_at_most(count: int) -> Iterator[None]:
    """The kernel refuses longer files, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

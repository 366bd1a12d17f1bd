"""The local store on disks that are full, read-only or broken, and beside other processes, one of them killed.

Full and read-only disks are real ones, mounted in a private mount namespace.
"""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gateway.errors import (
    StoreFull,
    StoreReadOnly,
    StoreRefused,
    StoreUnavailable,
)
from gateway.objectstore import durable
from gateway.objectstore.local import LocalStore

REPOSITORY = Path(__file__).parents[2]
CAN_MOUNT = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
needs_mounts = pytest.mark.skipif(
    not CAN_MOUNT, reason="NOT TESTED: `unshare -rm` is not permitted, so no disk to fill"
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


async def test_what_a_killed_writer_left_is_invisible_and_swept_later(store: LocalStore, tmp_path: Path) -> None:
    writer = start(
        """
        async def chunks():
            yield bytes(3 << 20)
            print("under way", flush=True)
            await asyncio.Event().wait()
        await store.put_stream_if_absent("blob", chunks(), sha256="0" * 64, size=1 << 30)
        """,
        tmp_path,
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    (leftover,) = files_in(tmp_path / ".tmp")

    assert [row async for row in store.list("")] == []
    await store.put_if_absent("young leftovers stay", b"")
    assert files_in(tmp_path / ".tmp") == [leftover]

    a_day_ago = time.time() - durable.STALE_S - 1
    os.utime(leftover, (a_day_ago, a_day_ago))
    await LocalStore(tmp_path).put_if_absent("old ones go", b"")
    assert files_in(tmp_path / ".tmp") == []


def test_a_write_that_is_done_is_done_though_its_first_name_cannot_be_taken_away(tmp_path: Path) -> None:
    """The disk became read-only in between; here something else has that name."""
    with durable.staged(tmp_path) as file:
        file.write(b"x")
        durable.create(file, tmp_path / "object", tmp_path)
        Path(file.name).unlink()
        Path(file.name).mkdir()
    assert (tmp_path / "object").read_bytes() == b"x"


@needs_mounts
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    heard = run_mounted(
        "mount -t tmpfs -o size=1m none $ROOT",
        """
        await store.put_if_absent("fits", b"x")
        etag = (await store.get("fits")).etag
        for call in (store.put_if_absent("a", bytes(2 << 20)), store.put_if_match("fits", bytes(2 << 20), etag)):
            try:
                await call
            except Exception as error:
                print(type(error).__name__)
        print([row.key async for row in store.list("")], (await store.get("fits")).body)
        await store.put_if_absent("fits again", bytes(1 << 19))
        """,
        tmp_path,
    )

    assert heard == ["StoreFull", "StoreFull", "['fits'] b'x'"]


@needs_mounts
def test_a_read_only_disk_still_reads(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"body")
    heard = run_mounted(
        "mount --bind $ROOT $ROOT && mount -o remount,ro,bind $ROOT",
        """
        etag = (await store.get("key")).etag
        for call in (store.put_if_absent("a", b""), store.put_if_match("key", b"", etag), store.delete("key")):
            try:
                await call
            except Exception as error:
                print(type(error).__name__)
        print((await store.get("key")).body)
        """,
        tmp_path,
    )

    assert heard == ["StoreReadOnly"] * 3 + ["b'body'"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreReadOnly),
        (errno.EACCES, StoreReadOnly),
        (errno.EPERM, StoreReadOnly),
        (errno.EIO, StoreUnavailable),
    ],
)
async def test_a_failing_write_says_why_and_leaves_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StoreUnavailable]
) -> None:
    def failing_fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(StoreUnavailable, match=os.strerror(number)) as failure:
        await store.put_if_absent("key", b"body")

    assert type(failure.value) is expected
    assert [row async for row in store.list("")] == []
    assert files_in(tmp_path / ".tmp") == []


async def test_a_file_that_may_not_be_read_is_refused(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put_if_absent("key", b"body")

    def refusing_open(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refusing_open)  # the tests may run as root, whom no mode bits stop
    with pytest.raises(StoreRefused, match="Permission denied"):
        await store.get("key")


def test_no_compare_and_swap_is_lost_between_processes(tmp_path: Path) -> None:
    (tmp_path / "counter").write_bytes(b"0")
    increments = """
        from gateway.errors import PreconditionFailed
        done = 0
        while done < 40:
            found = await store.get("counter")
            try:
                await store.put_if_match("counter", b"%d" % (int(found.body) + 1), found.etag)
                done += 1
            except PreconditionFailed:
                pass
        """

    with start(increments, tmp_path) as one, start(increments, tmp_path) as other:
        assert (one.wait(), other.wait()) == (0, 0)

    assert (tmp_path / "counter").read_bytes() == b"80"


def program(body: str) -> str:
    """A process of its own that uses a `LocalStore` in the folder named by its first argument."""
    head = "import asyncio, sys\nfrom pathlib import Path\nfrom gateway.objectstore.local import LocalStore\n"
    main = "async def main(store):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    return f"{head}{main}\nasyncio.run(main(LocalStore(Path(sys.argv[1]))))\n"


def start(body: str, root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program(body), str(root)], cwd=REPOSITORY, stdout=subprocess.PIPE)


def run_mounted(mount: str, body: str, root: Path) -> list[str]:
    """What the program prints, line by line, when `mount` has been done at the root, for it alone."""
    shell = f'{mount} && exec "$PYTHON" -c "$PROGRAM" "$ROOT"'
    environment = {**os.environ, "ROOT": str(root), "PYTHON": sys.executable, "PROGRAM": program(body)}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]

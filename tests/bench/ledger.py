"""`make bench-ledger`: reports over a large compacted ledger, the same ledger verified, and ten thousand segments synced twice.

Each report is a process of its own, as its user would start it: seconds, of them CPU, peak resident memory, the machine's load, and
the ratio of its time to the baseline's, which is DuckDB alone counting and summing the same requests' Parquet files. The machine
does other things; a ratio and CPU seconds survive that better than seconds. The ledger (2.2 GB for 100 million requests) is made
first and deleted afterwards, or kept in `--store` for the next time.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateway.contract import layout
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectInfo
from gateway.reports.once import Order
from gateway.reports.query import Query
from gateway.reports.sync import sync
from tests.bench import ledgermade

SECONDS_MAX, RSS_MAX = 10, 2 << 30  # what is promised on two cores
SEGMENTS = 10_000

BARE = """
import duckdb, sys
with duckdb.connect(config={"memory_limit": "1GB", "threads": "2"}) as connection:
    print(*connection.execute(f"SELECT count(*), sum(cost_picousd) FROM read_parquet('{sys.argv[1]}')").fetchone())
"""


class Ran(msgspec.Struct, frozen=True):
    """One process: its seconds, those of CPU, its peak memory, and what it wrote."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int
    output: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000_000)
    parser.add_argument("--hours", type=int, default=720, help="of one container, with a segment every 10 s")
    parser.add_argument("--jobs", type=int, default=2, help="processes that make the ledger")
    parser.add_argument("--folder", help="where to make it; needs 25 bytes a request")
    parser.add_argument(
        "--store", type=Path, help="a ledger made before with the same numbers; made there if it is not"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="steelyard-bench-") as folder:
        asyncio.run(_segments(Path(folder)))
        store = chosen.store or Path(folder) / "store"
        made = _made(store, chosen.requests, chosen.hours, chosen.jobs)
        failures = _reports(Path(folder), store, made, chosen.hours)
    sys.exit(1 if failures else 0)


def _made(root: Path, requests: int, hours: int, jobs: int) -> tuple[int, int]:
    """The ledger's requests and pico-dollars."""
    began, is_new, per_segment = time.monotonic(), not root.exists(), -(-requests // (hours * ledgermade.PER_HOUR))
    if is_new:
        with tempfile.TemporaryDirectory(dir=_there(root.parent), prefix="steelyard-bench-") as folder:
            ledgermade.make(_there(Path(folder) / "store"), hours, per_segment, jobs)
            (Path(folder) / "store").rename(root)  # a run that was stopped leaves nothing that looks like a ledger
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    made = ledgermade.total(root)
    if made[0] != per_segment * hours * ledgermade.PER_HOUR:
        sys.exit(f"{root} has {made[0]:,} requests: give another --store, or delete it")
    what = f"made in {time.monotonic() - began:.0f} s" if is_new else "made before"
    print(
        f"{made[0]:,} requests in {hours * ledgermade.PER_HOUR:,} segments of {hours} hours: {size / 1e9:.1f} GB, {what}"
    )
    return made


def _there(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _reports(folder: Path, root: Path, made: tuple[int, int], hours: int) -> int:
    requests, cost = made
    pattern = f"{root}/{layout.compacted('requests')}*/*/*.parquet"
    bare = _ran([sys.executable, "-c", BARE, pattern])
    assert int(bare.output.split()[0]) == requests
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores")
    print(f"{'':<44} {'seconds':>8} {'CPU s':>7} {'peak MB':>8} {'of baseline':>12} {'load':>6}")
    _line("baseline: DuckDB, count and sum", bare, bare)
    failures = 0
    copies = str(folder / "copies")
    since = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(ledgermade.BOOT_NS // 10**9 + hours * 1800 + 90))
    for name, options in {
        "costs, nothing copied yet": ["--json"],
        "costs": ["--json"],
        "costs --by model,tenant,outcome,day": ["--by", "model,tenant,outcome,day", "--json"],
        f"costs --since {since}": ["--since", since, "--json"],
        "costs --html, with latency": ["--html", str(folder / "costs.html")],
        "costs --energy --by model,tenant,day": ["--energy", "--by", "model,tenant,day", "--json"],
        "costs --energy --html, with latency": ["--energy", "--html", str(folder / "costs.html")],
        "costs --focus 1.2": ["--focus", "1.2", str(folder / "focus.parquet")],
    }.items():
        ran = _ran([sys.executable, "-m", "gateway", "costs", "--store", str(root), "--cache", copies, *options])
        _line(name, ran, bare)
        failures += ran.seconds > SECONDS_MAX or ran.rss_bytes > RSS_MAX
        if options == ["--json"]:
            said = json.loads(ran.output)
            assert (said["charged_picousd"], said["balanced"]) == (cost, True)
            assert not any(finding["is_fault"] for finding in said["findings"])
            assert sum(row["requests"] for row in said["models"]) == requests
    order = Order(str(root), copies, Query(), "html")
    os.chmod(copies, 0o700)
    page = _ran([sys.executable, "-m", "gateway.reports.once"], msgspec.json.encode(order))
    _line("the gateway's /costs, in its own process", page, bare)
    failures += page.seconds > SECONDS_MAX or page.rss_bytes > RSS_MAX
    verdict = _ran([sys.executable, "-m", "gateway", "ledger", "verify", "--store", str(root)])
    _line("ledger verify, every byte", verdict, bare)
    print(verdict.output.strip())
    print(f"{failures} reports took more than {SECONDS_MAX} s or {RSS_MAX >> 30} GB")
    return failures


def _line(name: str, ran: Ran, bare: Ran) -> None:
    figures = f"{ran.seconds:8.2f} {ran.cpu_seconds:7.2f} {ran.rss_bytes / 1e6:8.0f} {ran.seconds / bare.seconds:12.2f}"
    print(f"{name:<44} {figures} {os.getloadavg()[0]:6.1f}", flush=True)


def _ran(command: list[str], told: bytes = b"") -> Ran:
    """To its end; `told` is its standard input. Raises `CalledProcessError` when it fails."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as given:
        given.write(told)
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        written = output.read().decode()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, written)
    return Ran(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, written)


class _Counting(LocalStore):
    """`rows` of listings and `gets` since the last look."""

    rows = 0
    gets = 0

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in super().list(prefix, start_after=start_after):
            self.rows += 1
            yield info

    async def get(self, key: str):  # type: ignore[no-untyped-def] # as the parent's
        self.gets += 1
        return await super().get(key)


async def _segments(folder: Path) -> None:
    """Ten thousand segments of a container that goes on: everything the first time, then what is new."""
    root = folder / "segments"
    boot_ns = time.time_ns() // ledgermade.HOUR_NS * ledgermade.HOUR_NS - 28 * ledgermade.HOUR_NS
    _write(root, layout.container_open("bench", boot_ns), b"{}")
    for seq in range(SEGMENTS):
        _segment(root, boot_ns, seq)
    store = _Counting(root)
    print(f"{SEGMENTS:,} segments {'seconds':>29} {'keys listed':>12} {'fetched':>8}")
    first_s = 0.0
    for name, new in {"synced first": 0, "and again, nothing new": 0, "and again, six new": 6}.items():
        for seq in range(SEGMENTS, SEGMENTS + new):
            _segment(root, boot_ns, seq)
        store.rows = store.gets = 0
        began = time.monotonic()
        local = await sync(store, folder / "segment-copies")
        seconds = time.monotonic() - began
        assert len(local.segments) == SEGMENTS + new
        first_s = first_s or seconds
        print(f"  {name:<36} {seconds:8.2f} {store.rows:12,} {store.gets:8,}   {seconds / first_s:.3f} of the first")
    await store.aclose()


def _segment(root: Path, boot_ns: int, seq: int) -> None:
    at_ns = boot_ns + seq * ledgermade.SEGMENT_NS
    _write(root, layout.segment(from_ns=at_ns, container="bench", boot_ns=boot_ns, seq=seq), bytes(20_000))


def _write(root: Path, key: str, body: bytes) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(body)


if __name__ == "__main__":
    main()

"""`python -m tests.bench.access`: what knowing a caller costs, beside empty calls in the same run, and what 10,000 keys take.

First the four calls that every request makes, for a caller without limits and for one with all of them. Rounds alternate, medians
count. Then a folder with 10,000 keys, read by a new gateway: seconds and resident memory.
"""

import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.access import issuing, tokens
from gateway.access.gate import AccessOptions, Gate
from gateway.access.keyring import KeyRing
from gateway.accounting.clock import SystemClock
from gateway.contract import codec, layout
from gateway.contract.access import KeyRecord
from gateway.objectstore.local import LocalStore

REQUESTS = 50_000
ROUNDS = 9
KEYS = 10_000
PLENTY = 10**9


def main() -> None:
    _calls()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_many_keys(Path(folder)))


def _calls() -> None:
    """Written out: a loop over functions would cost more than what it measures."""
    clock = SystemClock()
    ring = KeyRing(clock.now_ns)
    free, free_record = issuing.new(_wanted())
    limited, limited_record = issuing.new(
        _wanted(models=("other", "digits-*"), rps=PLENTY, concurrency=PLENTY, budget_picousd_per_day=10**20)
    )
    ring.put(free_record)
    ring.put(limited_record)

    def empty() -> None:
        for _ in range(REQUESTS):
            _empty(b"header", None)
            _empty("digits-small")
            _empty()
            _empty(3839)

    def unlimited() -> None:
        header = f"Bearer {free}".encode()
        for _ in range(REQUESTS):
            caller = ring.caller(header, None)
            caller.check("digits-small")
            caller.enter()
            caller.leave(3839)

    def with_limits() -> None:
        header = f"Bearer {limited}".encode()
        for _ in range(REQUESTS):
            caller = ring.caller(header, None)
            caller.check("digits-small")
            caller.enter()
            caller.leave(3839)

    empty_ns, unlimited_ns, limited_ns = _medians(empty, unlimited, with_limits)
    print(f"four empty calls                             {empty_ns:6.0f} ns")
    for what, ns in (
        ("without limits", unlimited_ns),
        ("glob, rate, concurrency, budget", limited_ns),
    ):
        print(f"caller, check, enter, leave: {what:<33}{ns:6.0f} ns, {ns / empty_ns:.1f} times the empty calls")


async def _many_keys(folder: Path) -> None:
    record = issuing.new(_wanted(models=("digits", "flights-*"), rps=50, budget_picousd_per_day=10**12))[1]
    (folder / layout.KEYS).mkdir()
    for _ in range(KEYS):  # as the store writes them, without its fsync
        key_id, token = tokens.new()
        made = {"id": key_id, "secret_sha256": tokens.digest(token.encode()).hex()}
        (folder / layout.key(key_id)).write_bytes(codec.encode(KeyRecord(**(_fields(record) | made))))
    clock = SystemClock()
    rss_bytes, began_s = clock.rss_bytes(), time.perf_counter()
    gate = Gate(
        LocalStore(folder),
        AccessOptions(poll_s=3600),
        container=secrets.token_hex(4),
        boot_ns=clock.started_ns,
        now_ns=clock.now_ns,
        is_loopback=False,
        insecure_no_auth=False,
    )
    async with gate:
        loaded_s = time.perf_counter() - began_s
        assert gate.ring.usable() == KEYS
        grown_bytes = clock.rss_bytes() - rss_bytes
        began_s = time.perf_counter()
        await gate._look()
        look_s = time.perf_counter() - began_s
    print(f"{KEYS:,} keys from a folder: {loaded_s:.2f} s to read, {grown_bytes / 2**20:.0f} MiB more resident")
    print(f"a poll that finds nothing new: {look_s:.3f} s, {os.cpu_count()} cores")


def _wanted(**limits: object) -> dict[str, object]:
    return {
        "tenant": "team-a",
        "rights": ("predict",),
        "models": ("*",),
        "created_ns": 0,
        "created_by": "bench",
        **limits,
    }


def _fields(record: KeyRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _empty(*_: object) -> None:
    """A call that does nothing."""


def _medians(*rounds: Callable[[], None]) -> list[float]:
    """Nanoseconds per request of each, the rounds taken in turn."""
    seen: list[list[float]] = [[] for _ in rounds]
    for _ in range(ROUNDS):
        for work, times in zip(rounds, seen, strict=True):
            began_ns = time.perf_counter_ns()
            work()
            times.append((time.perf_counter_ns() - began_ns) / REQUESTS)
    return [statistics.median(times) for times in seen]


if __name__ == "__main__":
    main()

"""What a process holds as the kernel counts it: memory, descriptors, threads. For tests that prove that it gives them back."""

import time
from pathlib import Path

import msgspec

POLL_S = 0.1
STEADY_READINGS = 6
STEADY_BYTES = 1 << 20
PATIENCE_S = 20  # for what must happen; a limit, not a measurement


class Footprint(msgspec.Struct, frozen=True):
    """`peak_bytes` is the most that was ever resident."""

    resident_bytes: int
    peak_bytes: int
    descriptors: int
    threads: int

    def is_within(self, base: "Footprint", *, bytes_more: int, threads_more: int) -> bool:
        return (
            self.resident_bytes <= base.resident_bytes + bytes_more
            and self.descriptors <= base.descriptors
            and self.threads <= base.threads + threads_more
        )


def of(pid: int) -> Footprint:
    process = Path(f"/proc/{pid}")
    lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    kilobytes = [int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM")]
    return Footprint(
        kilobytes[0] << 10, kilobytes[1] << 10, len(list((process / "fd").iterdir())), int(lines["Threads"])
    )


def settled(pid: int) -> Footprint:
    """The first reading that several more agree with; nothing may be asked of the process meanwhile."""
    before, agreeing = of(pid), 0
    until_s = time.monotonic() + PATIENCE_S
    while agreeing < STEADY_READINGS:
        assert time.monotonic() < until_s, f"it never settled: {before}"
        time.sleep(POLL_S)
        now = of(pid)
        is_steady = (
            abs(now.resident_bytes - before.resident_bytes) < STEADY_BYTES and now.descriptors == before.descriptors
        )
        before, agreeing = (before, agreeing + 1) if is_steady else (now, 0)
    return before


def comes_within(pid: int, base: Footprint, *, bytes_more: int, threads_more: int) -> None:
    """Wait until it holds no more than `base` and these margins, and no descriptor more."""
    until_s = time.monotonic() + PATIENCE_S
    while not (now := of(pid)).is_within(base, bytes_more=bytes_more, threads_more=threads_more):
        assert time.monotonic() < until_s, f"it holds {now}, and should be back at {base}"
        time.sleep(POLL_S)

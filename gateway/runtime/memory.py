"""Memory as onnxruntime takes it: one bounded arena for what runs compute with, a limit on what a build may take, giving back.

The arena is one for all models of the process, as threads are. A graph that asks for more gets an exception, not the OOM killer.
Weights are outside of it: they are in malloc, and leave with their session. Measured in infra/decisions/0004.
"""

import asyncio
import contextlib
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from gateway import allocator, cgroup

BUILD_BYTES_MIN = 256 << 20
BUILD_BYTES_PER_BYTE = 8
"""A build takes up to 1.8 times the file (105 MB of fully connected layers); with constants that optimizing folds, more."""

_DOUBLING = 0
"""The arena's regions grow as powers of two. Taking what is asked for leaves a region behind for every new size of batch:
128 growing batches of a small CNN took 2.1 GB that way, 216 MB this way.
"""

DEAD_BYTES_PER_CHUNK = 1 << 20
"""What may be wasted at the end of a piece; onnxruntime's own 128 MB would let pieces of that size use half of a small arena."""

_SHRINK = "memory.enable_memory_arena_shrinkage"


class _Arena:
    """The process's arena. onnxruntime keeps it until the process ends, so the first size asked for stays."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        kind = {
            "max_mem": bytes_max,
            "arena_extend_strategy": _DOUBLING,
            "max_dead_bytes_per_chunk": DEAD_BYTES_PER_CHUNK,
        }
        ort.create_and_register_allocator(info, ort.OrtArenaCfg(kind))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.use_env_allocators", "1")
        self._nothing = ort.InferenceSession(
            _identity_graph(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        self._nothing.run(
            None, {"x": np.zeros(1, np.float32)}
        )  # the first region is never returned: make it the smallest
        self._shrink = ort.RunOptions()
        self._shrink.add_run_config_entry(_SHRINK, "cpu:0")

    def shrink(self) -> None:
        """Return regions that nothing uses. onnxruntime offers this at the end of a run only, so run a graph that does nothing:
        on no elements, for the smallest output would still hold its region.
        """
        self._nothing.run(None, {"x": np.zeros(0, np.float32)}, self._shrink)


_lock = threading.Lock()
_arena: _Arena | None = None
_building = threading.Lock()


def open_arena(bytes_max: int = 0) -> int:
    """Before the first session; later calls change nothing. Returns the limit in force: 0 means half of the container's memory."""
    global _arena  # noqa: PLW0603  onnxruntime's allocators are global to the process, and so is this
    with _lock:
        if _arena is None:
            _arena = _Arena(bytes_max or cgroup.memory_limit_bytes(Path("/")) // 2)
        return _arena.bytes_max


def trim() -> None:
    """Give back what nothing uses: the arena's free regions, and malloc's. Blocks for up to some 10 ms: call it off the event loop.

    A build leaves up to half a file's size behind in malloc, and a session's end its weights.
    """
    if _arena is not None:
        _arena.shrink()
    allocator.trim()


def settle() -> None:
    """After an allocation was refused: wait for a build that may have lowered the limit for all, then trim."""
    with _building:
        trim()


def require(bytes_needed: int) -> None:
    """Raises `MemoryError` when so much cannot be had while a build limits us all: for code that ends the process when it fails."""
    if _building.locked():
        bytearray(bytes_needed)


async def keep_trimmed(every_s: float) -> None:
    """Trims at this interval, in a thread, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(trim)


@contextlib.contextmanager
def build_limit(bytes_max: int) -> Iterator[None]:
    """The whole process may take so much more while this is open; one build at a time.

    The kernel refuses the allocation that would pass it, and onnxruntime makes an exception of that. It counts what is mapped, used
    or not. A graph of 600 bytes can ask for gigabytes as soon as it is loaded: by constants that are computed, by sparse weights.
    """
    with _building:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        limit = min([_data_bytes() + bytes_max, *(one for one in before if one != resource.RLIM_INFINITY)])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def build_bytes_max(file_bytes: int) -> int:
    """What building a session from a file of this size may take at most."""
    return BUILD_BYTES_MIN + BUILD_BYTES_PER_BYTE * file_bytes


def _data_bytes() -> int:
    """What RLIMIT_DATA compares with: private writable mappings (proc(5), `VmData`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


def _identity_graph() -> bytes:
    """x float [n] -> Identity -> y, opset 13, as protobuf: the gateway has no `onnx` to make one with."""
    floats = b"\x08\x01" + _field(2, _field(1, _field(2, b"n")))
    tensor = _field(2, _field(1, floats))
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity")
    graph = (
        _field(1, node) + _field(2, b"g") + _field(11, _field(1, b"x") + tensor) + _field(12, _field(1, b"y") + tensor)
    )
    return b"\x08\x08" + _field(8, b"\x10\x0d") + _field(7, graph)


def _field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data

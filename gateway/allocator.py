"""The C library's allocator: gives back to the system what was freed. Not onnxruntime's arena: that is `gateway.runtime.memory`'s.

`gateway.bootstrap` calls `keep_no_large_blocks` first. `trim` is called after sessions were built or destroyed, and by whoever
measures what one holds.
"""

import contextlib
import ctypes

BLOCK_BYTES_MIN = 4 << 20
"""A block above it costs its page faults each time: 0.3 ms for each MB, where reading a MB of JSON numbers takes 1.3 ms or more."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3); setting one ends the adjusting of both


def keep_no_large_blocks() -> None:
    """From now on and in all threads, large blocks come from the system and go back to it.

    glibc raises both thresholds to what was freed last, up to 32 MB and twice that, and keeps as much at the top of the arena of
    each thread that ever held such a block; `malloc_trim` does not reach there. 36 compressed bodies of 12 to 31 MB left 250 MB
    behind in seven threads, and leave 1 to 3 MB this way; a container with more CPUs has more threads.
    """
    with contextlib.suppress(OSError, AttributeError):  # as below
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, BLOCK_BYTES_MIN)
        mallopt(_MMAP_THRESHOLD, BLOCK_BYTES_MIN)


def trim() -> None:
    """Blocks for milliseconds (6 for the 40 MB of 30 models, `python -m tests.bench.models`): call it off the event loop."""
    if _malloc_trim is not None:
        _malloc_trim(0)


def _find() -> "ctypes._NamedFuncPointer | None":
    """glibc keeps freed memory in its arenas; other C libraries have no such call."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


_malloc_trim = _find()

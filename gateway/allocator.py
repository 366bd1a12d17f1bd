"""The C library's allocator: gives back to the system what was freed. Not onnxruntime's arena: that is `gateway.runtime.memory`'s.

Called after sessions were built or destroyed, and by whoever measures what one holds.
"""

import ctypes


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

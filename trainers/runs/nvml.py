"""Energy of this machine's GPUs by NVML's own counter (millijoules since the driver was loaded; Volta and newer have it).

Needs `nvidia-ml-py` where there is a GPU, and asks for nothing where either is missing: then nothing is told. All GPUs of the
machine count, as all of them are billed; what others run on it counts too. Never run on a GPU yet: tested with a library object in
NVML's place.
"""

import contextlib
import importlib
import threading
from collections.abc import Sequence
from typing import Any  # Any: pynvml has no types

NJ_PER_MJ = 10**6


class Counters:
    """Of some GPUs. `library` is pynvml or what stands in for it; it stays initialized for the life of the process."""

    def __init__(self, library: Any, handles: Sequence[Any]) -> None:
        self._library = library
        self._handles = handles
        self._lock = threading.Lock()

    def total_nj(self) -> int | None:
        """Of all of them since their driver was loaded; None when one cannot tell."""
        with self._lock:
            try:
                counts: list[int] = [
                    self._library.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles
                ]
            except self._library.NVMLError:
                return None
        return sum(counts) * NJ_PER_MJ


class Used:
    """What was used since this was made; None from the first reading on that failed, for a part would be too little."""

    def __init__(self, counters: Counters | None) -> None:
        self._counters = counters
        self._begin_nj = counters.total_nj() if counters else None

    def __call__(self) -> int | None:
        now_nj = self._counters.total_nj() if self._counters and self._begin_nj is not None else None
        if now_nj is None or self._begin_nj is None or now_nj < self._begin_nj:  # the driver was loaded anew
            self._begin_nj = None
            return None
        return now_nj - self._begin_nj


def of_machine(library: Any = None) -> Counters | None:
    """All GPUs of this machine; None without NVML, without a GPU, or where a GPU has no counter."""
    return _opened(library, lambda nvml: [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())])


def of_gpu(uuid: str, library: Any = None) -> Counters | None:
    """The GPU with this UUID, as CUDA and NVML both know it: their numbers may differ. None as `of_machine`."""
    name = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
    return _opened(library, lambda nvml: [nvml.nvmlDeviceGetHandleByUUID(name)])


def _opened(library: Any, handles: Any) -> Counters | None:
    nvml = library
    if nvml is None:
        with contextlib.suppress(ImportError):
            nvml = importlib.import_module("pynvml")
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
        opened = handles(nvml)
        found = Counters(nvml, opened)
    except nvml.NVMLError:  # no driver, no such GPU, no permission
        return None
    return found if opened and found.total_nj() is not None else None

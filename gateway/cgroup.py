"""What this container may use of the machine: CPUs and memory, from its cgroups (v1 or v2), else the machine's own.

Read by the ledger (what is billed) and by the runtime (how many threads, how much working memory), never from the host's CPU count.
Functions over a root path: tests give them a tree of files.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import SettingsError


def cpus(root: Path = Path("/")) -> int:
    """Whole CPUs that can be busy at once, at least one: a quota of 1.5 CPUs keeps one thread busy without being throttled."""
    return max(1, cpu_limit_milli(root, host_cpus=len(os.sched_getaffinity(0))) // 1000)


def cpu_limit_milli(root: Path, *, host_cpus: int) -> int:
    """Thousandths of a CPU: the smallest quota that applies, at most the CPUs this process may run on."""
    quotas = [quota for folder in _cgroups(root, "cpu") if (quota := _cpu_quota_milli(folder))]
    return min([*quotas, host_cpus * 1000])


def memory_limit_bytes(root: Path) -> int:
    """The smallest limit that applies, at most the machine's memory (cgroup v1 writes "no limit" as a number near 2^63)."""
    limits = [limit for folder in _cgroups(root, "memory") if (limit := _memory_limit(folder))]
    return min([*limits, _host_memory_bytes(root)])


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders whose limits bind this process: its own cgroup and all above it.

    Inside a container only the mount's top may exist, and that is then the container's own.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        folder = mount / path.lstrip("/")
        while folder != mount:
            yield folder
            folder = folder.parent
        yield mount


def _cpu_quota_milli(folder: Path) -> int:
    """0 when this folder sets none: v2 then says "max", v1 -1."""
    quota, period = _words(folder / "cpu.max") or (
        _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us") or ("max", "")
    )
    return 0 if quota in {"max", "-1"} else max(1, int(quota) * 1000 // int(period))


def _memory_limit(folder: Path) -> int:
    """0 when this folder sets none."""
    (limit,) = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes") or ("max",)
    return 0 if limit == "max" else int(limit)


def _host_memory_bytes(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise SettingsError("this machine does not say how much memory it has (/proc/meminfo): set memory_gb")


def _words(path: Path) -> tuple[str, ...]:
    return tuple(word for line in _lines(path) for word in line.split())


def _lines(path: Path) -> list[str]:
    """Nothing when there is no such file: another cgroup version, or the top of the tree, where v2 has no limits."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

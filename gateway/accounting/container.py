"""This container: who it is, when its bill began, and what it holds for its whole life.

The size is what the platform bills by, so a setting wins. Without one it is the cgroup's limit, and without that the machine's.
Functions over a root path: tests give them a tree of files.
"""

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.contract.ledger import ProvisionedSku
from gateway.contract.prices import Platform
from gateway.errors import SettingsError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Container(msgspec.Struct, frozen=True):
    """`id` and `boot_ns` together name one life: an id may be used again, a moment not."""

    id: str
    boot_ns: int
    platform: str
    vcpu_milli: int
    memory_bytes: int

    def provisioned(self, platform: Platform) -> tuple[ProvisionedSku, ProvisionedSku]:
        """Its vCPUs and its memory, as the platform's skus."""
        return (
            ProvisionedSku(platform.vcpu_sku, "milli-vcpu-ns", self.vcpu_milli),
            ProvisionedSku(platform.memory_sku, "byte-ns", self.memory_bytes),
        )


def detect(
    *,
    container_id: str = "",
    boot_ns: int,
    platform: str,
    vcpu_milli: int = 0,
    memory_bytes: int = 0,
    root: Path = Path("/"),
) -> Container:
    """This container. A size of 0 means: find out; without an id it gets a random one.

    Raises `SettingsError` when the id cannot be part of an object's key.
    """
    container_id = container_id or uuid.uuid4().hex
    if not _ID.fullmatch(container_id):
        raise SettingsError(
            f"container id '{container_id[:128]}' names objects in the ledger: 1 to 128 of A-Z a-z 0-9 . _ -, the first no sign"
        )
    return Container(
        container_id,
        boot_ns,
        platform,
        vcpu_milli or cpu_limit_milli(root, host_cpus=len(os.sched_getaffinity(0))),
        memory_bytes or memory_limit_bytes(root),
    )


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

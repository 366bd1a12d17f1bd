"""This container: who it is, when its bill began, what it is billed as, and what it holds for its whole life.

The size is what the platform bills by, so a setting wins; then what the platform says (`gateway.accounting.placement`), then what
`gateway.cgroup` finds. The platform likewise; where nothing says it, Fargate's prices are assumed, aloud.
"""

import math
import os
import platform as machines
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway import cgroup
from gateway.accounting import placement
from gateway.contract.ledger import Part, ProvisionedSku
from gateway.contract.prices import BYTES_PER_GB, Platform
from gateway.errors import SettingsError

AUTO = "auto"
VCPU_WEIGHT, GB_WEIGHT = 9, 1
"""How a machine's one price is cut: a vCPU weighs as much as 9 GB, as AWS does for split cost allocation (AWS data exports user
guide, "split cost allocation data": m5.xlarge at $1 is $0.17 per vCPU-hour and $0.02 per GB-hour)."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Container(msgspec.Struct, frozen=True):
    """`id` and `boot_ns` together name one life: an id may be used again, a moment not.

    `platform_from` and `size_from` say how these are known. `resource` is its name on the bill, where the platform says it.
    """

    id: str
    boot_ns: int
    platform: str
    vcpu_milli: int
    memory_bytes: int
    platform_from: str = "setting"
    size_from: str = "setting"
    resource: str = ""

    @property
    def boot_day(self) -> str:
        """The day (UTC) whose prices hold for the whole life."""
        return f"{datetime.fromtimestamp(self.boot_ns // 10**9, UTC):%Y-%m-%d}"

    def provisioned(self, platform: Platform) -> tuple[ProvisionedSku, ProvisionedSku]:
        """Its vCPUs and its memory, as the platform's skus; as parts of one price where that is all it has: a machine's, or that of
        a memory with which the vCPUs come.
        """
        if platform.machine_sku:
            return self._parts(platform.machine_sku, 1)
        if not platform.vcpu_sku:
            return self._parts(platform.memory_sku, self.memory_bytes)
        return (
            ProvisionedSku(platform.vcpu_sku, "milli-vcpu-ns", self.vcpu_milli, self.boot_day),
            ProvisionedSku(platform.memory_sku, "byte-ns", self.memory_bytes, self.boot_day),
        )

    def requests(self, platform: Platform) -> ProvisionedSku | None:
        """Its requests, where the platform bills them."""
        return ProvisionedSku(platform.request_sku, "requests", 1, self.boot_day) if platform.request_sku else None

    def _parts(self, sku: str, times: int) -> tuple[ProvisionedSku, ProvisionedSku]:
        vcpu = VCPU_WEIGHT * self.vcpu_milli * BYTES_PER_GB
        memory = GB_WEIGHT * self.memory_bytes * 1000
        common = math.gcd(vcpu, memory)
        cut, whole = vcpu // common, (vcpu + memory) // common
        day = self.boot_day
        return (
            ProvisionedSku(f"{sku}/vcpu", "milli-vcpu-ns", self.vcpu_milli, day, Part(sku, 0, cut, whole, times)),
            ProvisionedSku(f"{sku}/memory", "byte-ns", self.memory_bytes, day, Part(sku, cut, whole, whole, times)),
        )


def detect(
    *,
    container_id: str = "",
    boot_ns: int,
    platform: str = AUTO,
    vcpu_milli: int = 0,
    memory_bytes: int = 0,
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    implied: str = "",
) -> Container:
    """This container. A size of 0 means: find out, and so does the platform `auto`.

    Without an id it has the one that its bill will name it by, where the platform says that, else a random one.
    `implied` is the platform that another setting means. Where nothing says which, Fargate for this machine's architecture is
    assumed. Raises `SettingsError` when the id cannot be part of an object's key.
    """
    found = placement.find(environ, machine=machines.machine(), started_ns=boot_ns)
    said = found.resource_id if _ID.fullmatch(found.resource_id) else ""
    container_id = container_id or said or uuid.uuid4().hex
    if not _ID.fullmatch(container_id):
        raise SettingsError(
            f"container id '{container_id[:128]}' names objects in the ledger: 1 to 128 of A-Z a-z 0-9 . _ -, the first no sign"
        )
    if platform != AUTO or implied:
        named, named_from = (implied if platform == AUTO else platform), "setting"
    elif found.platform:
        named, named_from = found.platform, found.source
    else:
        named, named_from = "fargate-arm" if machines.machine() in {"aarch64", "arm64"} else "fargate-x86", "assumed"
    cpu = vcpu_milli or found.vcpu_milli or cgroup.cpu_limit_milli(root, host_cpus=len(os.sched_getaffinity(0)))
    memory = memory_bytes or found.memory_bytes or cgroup.memory_limit_bytes(root)
    sources = {
        _source(vcpu_milli, found.vcpu_milli, found.source),
        _source(memory_bytes, found.memory_bytes, found.source),
    }
    size_from = " and ".join(sorted(sources))
    return Container(
        container_id, found.billed_from_ns or boot_ns, named, cpu, memory, named_from, size_from, found.resource
    )


def _source(configured: int, found: int, source: str) -> str:
    return "setting" if configured else source if found else "cgroup"

"""This container: who it is, when its bill began, and what it holds for its whole life.

The size is what the platform bills by, so a setting wins. Without one it is what `gateway.cgroup` finds.
"""

import os
import re
import uuid
from pathlib import Path

import msgspec

from gateway import cgroup
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
        vcpu_milli or cgroup.cpu_limit_milli(root, host_cpus=len(os.sched_getaffinity(0))),
        memory_bytes or cgroup.memory_limit_bytes(root),
    )

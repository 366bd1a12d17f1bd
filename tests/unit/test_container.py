"""The container's size from cgroup files of both versions, and where it comes from when they set no limit."""

import os
from pathlib import Path

import pytest

from gateway.accounting import container
from gateway.contract.ledger import ProvisionedSku
from gateway.contract.prices import Platform
from gateway.errors import SettingsError

GIB = 1 << 30
V1_NO_LIMIT = "9223372036854771712"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 16 GiB without cgroups."""
    return tree(tmp_path, {"proc/meminfo": f"MemTotal: {16 * GIB // 1024} kB\nMemFree: 1 kB\n"})


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def size(root: Path, *, host_cpus: int = 8) -> tuple[int, int]:
    return container.cpu_limit_milli(root, host_cpus=host_cpus), container.memory_limit_bytes(root)


def test_cgroup_v2_inside_a_container(root: Path) -> None:
    tree(
        root,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
        },
    )
    assert size(root) == (1500, 2 * GIB)


def test_cgroup_v1_inside_a_container_whose_path_is_the_hosts(root: Path) -> None:
    tree(
        root,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        },
    )
    assert size(root) == (250, GIB)


def test_the_smallest_limit_on_the_way_up_binds(root: Path) -> None:
    tree(
        root,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/pod/app/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/pod/app/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/pod/memory.max": f"{3 * GIB}\n",
        },
    )
    assert size(root) == (2000, 3 * GIB)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n"},
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
        {
            "proc/self/cgroup": "2:memory:/\n1:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{V1_NO_LIMIT}\n",
        },
    ],
    ids=["no cgroups", "top of v2", "v2 max", "v1 without limit"],
)
def test_without_a_limit_it_is_the_machine(root: Path, files: dict[str, str]) -> None:
    assert size(tree(root, files)) == (8000, 16 * GIB)


def test_a_limit_above_the_machine_is_the_machine(root: Path) -> None:
    tree(
        root,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "6400000 100000\n",
            "sys/fs/cgroup/memory.max": f"{64 * GIB}\n",
        },
    )
    assert size(root) == (8000, 16 * GIB)


def test_a_machine_that_hides_its_memory_needs_a_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set memory_gb"):
        container.memory_limit_bytes(tmp_path)
    here = container.detect(container_id="c", boot_ns=1, platform="p", memory_bytes=GIB, root=tmp_path)
    assert here.memory_bytes == GIB


def test_a_setting_wins_because_it_is_what_the_platform_bills(root: Path) -> None:
    tree(root, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"})
    here = container.detect(container_id="c", boot_ns=1, platform="p", vcpu_milli=1000, root=root)
    assert (here.vcpu_milli, here.memory_bytes) == (1000, 16 * GIB)


def test_the_size_of_this_machine_can_be_read() -> None:
    here = container.detect(container_id="c", boot_ns=1, platform="p")
    assert 0 < here.vcpu_milli <= 1000 * len(os.sched_getaffinity(0))
    assert here.memory_bytes > 0


def test_without_an_id_a_container_gets_one_of_its_own() -> None:
    one, other = (container.detect(boot_ns=1, platform="p", vcpu_milli=1, memory_bytes=1) for _ in range(2))
    assert one.id != other.id


@pytest.mark.parametrize("container_id", ["a/b", "../x", ".hidden", "a b", "x" * 129])
def test_an_id_that_cannot_be_in_a_key_is_refused(container_id: str) -> None:
    with pytest.raises(SettingsError, match="container id"):
        container.detect(container_id=container_id, boot_ns=1, platform="p")


def test_what_it_holds_is_named_by_the_platforms_skus() -> None:
    here = container.Container("c", 1, "p", 1500, GIB)
    assert here.provisioned(Platform("p", "p/vcpu", "p/memory")) == (
        ProvisionedSku("p/vcpu", "milli-vcpu-ns", 1500),
        ProvisionedSku("p/memory", "byte-ns", GIB),
    )

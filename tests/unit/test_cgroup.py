"""What a container may use, from cgroup files of both versions, and where it comes from when they set no limit."""

import os
from pathlib import Path

import pytest

from gateway import cgroup
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
    return cgroup.cpu_limit_milli(root, host_cpus=host_cpus), cgroup.memory_limit_bytes(root)


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
        cgroup.memory_limit_bytes(tmp_path)


@pytest.mark.parametrize(("quota", "threads"), [("50000", 1), ("100000", 1), ("199999", 1)])
def test_threads_are_whole_cpus_and_at_least_one(root: Path, quota: str, threads: int) -> None:
    tree(root, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert cgroup.cpus(root) == threads


def test_threads_never_exceed_the_cpus_this_process_may_run_on(root: Path) -> None:
    assert cgroup.cpus(root) == len(os.sched_getaffinity(0))

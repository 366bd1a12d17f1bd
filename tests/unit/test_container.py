"""This container: its id, and its size from a setting or from what `gateway.cgroup` finds."""

import os
from pathlib import Path

import pytest

from gateway.accounting import container, placement
from gateway.contract.ledger import ProvisionedSku
from gateway.contract.prices import Platform
from gateway.errors import SettingsError
from tests.support.ecsmetadata import metadata

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Half a CPU of a machine of 16 GiB."""
    files = {
        "proc/meminfo": f"MemTotal: {16 * GIB // 1024} kB\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_without_settings_its_size_is_the_cgroups(root: Path) -> None:
    here = container.detect(container_id="c", boot_ns=1, platform="p", root=root)
    assert (here.vcpu_milli, here.memory_bytes) == (min(500, 1000 * len(os.sched_getaffinity(0))), 16 * GIB)


def test_a_setting_replaces_what_the_machine_hides(tmp_path: Path) -> None:
    here = container.detect(container_id="c", boot_ns=1, platform="p", memory_bytes=GIB, root=tmp_path)
    assert here.memory_bytes == GIB


def test_a_setting_wins_because_it_is_what_the_platform_bills(root: Path) -> None:
    here = container.detect(container_id="c", boot_ns=1, platform="p", vcpu_milli=1000, root=root)
    assert (here.vcpu_milli, here.memory_bytes) == (1000, 16 * GIB)


def test_the_size_of_this_machine_can_be_read() -> None:
    here = container.detect(container_id="c", boot_ns=1, platform="p")
    assert 0 < here.vcpu_milli <= 1000 * len(os.sched_getaffinity(0))
    assert here.memory_bytes > 0


def test_without_an_id_a_container_gets_one_of_its_own() -> None:
    one, other = (container.detect(boot_ns=1, platform="p", vcpu_milli=1, memory_bytes=1) for _ in range(2))
    assert one.id != other.id


def test_on_ecs_it_is_called_as_its_bill_calls_it() -> None:
    task = {"LaunchType": "FARGATE", "TaskARN": "arn:aws:ecs:us-east-1:111122223333:task/default/158d1c80"}
    with metadata({"/v4/abc/task": task, "/v4/abc": {}}) as uri:
        environ = {placement.ECS_METADATA: uri}
        here = container.detect(boot_ns=1, environ=environ)
        assert (here.id, here.resource) == ("158d1c80", task["TaskARN"])
        mine = container.detect(boot_ns=1, environ=environ, container_id="mine")
        assert (mine.id, mine.resource) == ("mine", task["TaskARN"])


def test_a_task_whose_name_cannot_be_in_a_key_starts_all_the_same() -> None:
    with metadata({"/v4/abc/task": {"LaunchType": "FARGATE", "TaskARN": "x/.."}, "/v4/abc": {}}) as uri:
        assert len(container.detect(boot_ns=1, environ={placement.ECS_METADATA: uri}).id) == 32


@pytest.mark.parametrize("container_id", ["a/b", "../x", ".hidden", "a b", "x" * 129])
def test_an_id_that_cannot_be_in_a_key_is_refused(container_id: str) -> None:
    with pytest.raises(SettingsError, match="container id"):
        container.detect(container_id=container_id, boot_ns=1, platform="p")


def test_what_it_holds_is_named_by_the_platforms_skus() -> None:
    here = container.Container("c", 1, "p", 1500, GIB)
    assert here.provisioned(Platform("p", "p/vcpu", "p/memory")) == (
        ProvisionedSku("p/vcpu", "milli-vcpu-ns", 1500, "1970-01-01"),
        ProvisionedSku("p/memory", "byte-ns", GIB, "1970-01-01"),
    )


def test_where_nothing_says_the_platform_fargate_is_assumed_and_that_is_said() -> None:
    here = container.detect(container_id="c", boot_ns=1, environ={})
    assert here.platform in {"fargate-x86", "fargate-arm"}
    assert (here.platform_from, here.size_from) == ("assumed", "cgroup")


def test_a_setting_wins_over_what_the_platform_says() -> None:
    environ = {"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3538"}
    found = container.detect(boot_ns=1, environ=environ)
    assert found.platform.startswith("lambda-")
    assert (found.vcpu_milli, found.memory_bytes) == (2000, 3538 << 20)
    assert found.size_from == found.platform_from == "Lambda's environment"
    here = container.detect(boot_ns=1, platform="machine", memory_bytes=GIB, environ=environ)
    assert (here.platform, here.platform_from, here.memory_bytes) == ("machine", "setting", GIB)
    assert here.size_from == "Lambda's environment and setting"
    implied = container.detect(boot_ns=1, environ=environ, implied="machine")
    assert (implied.platform, implied.platform_from) == ("machine", "setting")

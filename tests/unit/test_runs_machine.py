"""What a machine says of itself: read from what is there, and nothing made up where it is not."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from trainers.runs import machine

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz
processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name in front of the PATH; a test writes what it does."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def says(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_a_cpu_machine_run_by_hand(tmp_path: Path, nvidia_smi: Path) -> None:
    says(nvidia_smi, "echo no devices were found >&2; exit 6")
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    found = machine.this({}, cpuinfo=tmp_path / "cpuinfo")
    assert found == machine.Machine(
        cpu="Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz",
        cpus=len(os.sched_getaffinity(0)),
        gpu="",
        gpus=0,
        platform="local",
        vcpu_milli=found.vcpu_milli,
        memory_bytes=found.memory_bytes,
    )
    assert 0 < found.vcpu_milli <= 1000 * found.cpus
    assert found.memory_bytes > 2**20
    assert machine.this({}, cpuinfo=tmp_path / "nosuch").cpu == "unknown"
    (tmp_path / "cpuinfo").write_text("processor : 0\nBogoMIPS : 243.75\n")
    assert machine.this({}, cpuinfo=tmp_path / "cpuinfo").cpu == os.uname().machine


def test_gpus_are_named_and_asked_how_busy_they_are(nvidia_smi: Path) -> None:
    says(nvidia_smi, 'case "$1" in *name) echo Tesla T4; echo Tesla T4;; *) echo 80; echo 40;; esac')
    found = machine.this({})
    assert (found.gpu, found.gpus) == ("Tesla T4", 2)
    busy = machine.Utilisation(found)
    assert busy.sample() == 0.6
    says(nvidia_smi, "echo '[N/A]'")
    assert busy.sample() is None


def test_a_cpu_machines_use_is_this_processes_share() -> None:
    here = machine.this({})
    busy = machine.Utilisation(machine.Machine(cpu="x", cpus=here.cpus, gpu="", gpus=0, platform="local"))
    began_s = os.times().user
    while os.times().user < began_s + 0.05:  # five ticks of the clock that counts CPU time
        sum(range(100_000))
    share = busy.sample()
    assert share is not None
    assert 0 < share <= 1


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"AWS_BATCH_JOB_ID": "j-1", "AWS_BATCH_JOB_ATTEMPT": "3"}, ("aws-batch", "j-1", 3)),
        ({"AWS_BATCH_JOB_ID": "j-1"}, ("aws-batch", "j-1", None)),
        ({"AWS_BATCH_JOB_ID": "j-1", "AWS_BATCH_JOB_ATTEMPT": "x"}, ("aws-batch", "j-1", None)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-x7"}, ("kubernetes", "train-x7", None)),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "train-x7", machine.POD_UID: "uid"},
            ("kubernetes", "uid", None),
        ),
    ],
)
def test_the_environment_names_the_job(environ: dict[str, str], expected: tuple[str, str, int | None]) -> None:
    found = machine.this(environ)
    assert (found.platform, found.job, found.job_attempt) == expected


SIZED = machine.Machine("x", 4, "", 0, "local", vcpu_milli=1500, memory_bytes=1 << 30)


@pytest.mark.parametrize(
    ("zone", "platform", "environ", "region"),
    [
        ("us-east-1a", "local", {}, "us-east-1"),
        ("ap-southeast-2c", "aws-batch", {"AWS_REGION": "eu-west-1"}, "ap-southeast-2"),
        ("us-west-2-lax-1a", "aws-batch", {}, "us-west-2"),
        ("us-gov-west-1b", "local", {}, "us-gov-west-1"),
        ("", "aws-batch", {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "x"}, "eu-west-1"),
        ("", "aws-batch", {"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ("", "local", {"AWS_REGION": "eu-west-1"}, ""),  # where a store is, not this machine
        ("somewhere", "kubernetes", {"AWS_REGION": "eu-west-1"}, ""),
    ],
)
def test_the_region_is_the_zones_or_the_jobs_and_is_not_made_up(
    zone: str, platform: str, environ: dict[str, str], region: str
) -> None:
    here = msgspec.structs.replace(SIZED, platform=platform)
    found = machine.allotted(here, machine.Placement(zone=zone), environ)
    assert found is not None
    assert (found.region, found.vcpu_milli, found.memory_bytes) == (region, 1500, 1 << 30)


def test_a_container_may_use_what_its_limits_say_and_an_unknown_size_is_unknown(tmp_path: Path) -> None:
    limits = {"proc/self/cgroup": "0::/\n", "proc/meminfo": "MemTotal: 999 kB\n"}
    limits |= {"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "4096\n"}
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = machine.this({}, root=tmp_path)
    assert (found.vcpu_milli, found.memory_bytes) == (500, 4096)
    nothing = machine.this({}, root=tmp_path / "nosuch")
    assert nothing.memory_bytes == 0
    assert machine.allotted(nothing, machine.Placement()) is None

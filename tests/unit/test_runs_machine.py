"""What a machine says of itself: read from what is there, and nothing made up where it is not."""

import os
import stat
from pathlib import Path

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
    )
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

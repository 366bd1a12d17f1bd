"""What this machine is and who started the job, for an attempt's record. Asks /proc, nvidia-smi and the environment; no torch.

Which instance it is, where, and how it was bought is passed in as a `Placement`: only the cloud's own metadata service knows.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from gateway import cgroup
from gateway.contract.runs import Allotment
from gateway.contract.words import Market
from gateway.errors import SettingsError

CPUINFO = Path("/proc/cpuinfo")
NVIDIA_SMI_SECONDS_MAX = 10  # it takes one or two; a wedged driver never answers

Processor = Literal["x86", "arm", ""]
PROCESSORS: Mapping[str, Processor] = {"x86_64": "x86", "aarch64": "arm"}
"""By what uname(2) calls the machine."""
_ZONE = re.compile(r"([a-z]{2,3}(?:-[a-z]+)+-[0-9]+)(?:[a-z]|-[a-z])")

POD_UID = "STEELYARD_POD_UID"
"""Set from `metadata.uid` by the Kubernetes manifest's downward API."""


class Placement(msgspec.Struct, frozen=True):
    """What is known about the instance; "" is unknown. `usd_per_hour` is its true price where the market was asked."""

    instance: str = ""
    zone: str = ""
    market: Market = "unknown"
    usd_per_hour: str | None = None


class Machine(msgspec.Struct, frozen=True):
    """`vcpu_milli` and `memory_bytes` are what the job may use of it, 0 where that cannot be told."""

    cpu: str
    cpus: int
    gpu: str
    gpus: int
    platform: str
    job: str = ""
    job_attempt: int | None = None
    vcpu_milli: int = 0
    memory_bytes: int = 0


def allotted(machine: Machine, placement: Placement, environ: Mapping[str, str] = os.environ) -> Allotment | None:
    """For the attempt's record; None where the machine does not say how large it is."""
    if not machine.vcpu_milli or not machine.memory_bytes:
        return None
    processor: Processor = PROCESSORS.get(os.uname().machine, "")
    return Allotment(processor, machine.vcpu_milli, machine.memory_bytes, _region(machine, placement, environ))


def this(environ: Mapping[str, str] = os.environ, *, cpuinfo: Path = CPUINFO, root: Path = Path("/")) -> Machine:
    """Blocks for a second or two where there is a GPU."""
    gpus = _nvidia_smi("name")
    platform, job, job_attempt = _job(environ)
    cpus = len(os.sched_getaffinity(0))
    return Machine(
        cpu=_cpu_model(cpuinfo),
        cpus=cpus,
        gpu=gpus[0] if gpus else "",
        gpus=len(gpus),
        platform=platform,
        job=job,
        job_attempt=job_attempt,
        vcpu_milli=cgroup.cpu_limit_milli(root, host_cpus=cpus),
        memory_bytes=_memory_bytes(root),
    )


class Utilisation:
    """How busy the machine is since the last question, 0 to 1: its GPUs now, or this process's share of its CPUs."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._before = self._cpu()

    def sample(self) -> float | None:
        """Blocks, a second or two where there is a GPU. None when it cannot be told."""
        if self._machine.gpus:
            answers = [
                float(answer) for answer in _nvidia_smi("utilization.gpu") if answer.replace(".", "", 1).isdecimal()
            ]
            return min(1.0, sum(answers) / len(answers) / 100) if answers else None
        now = self._cpu()
        used_s, passed_s = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        return min(1.0, used_s / (passed_s * self._machine.cpus)) if passed_s > 0 else None

    @staticmethod
    def _cpu() -> tuple[float, float]:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system, times.elapsed


def _job(environ: Mapping[str, str]) -> tuple[str, str, int | None]:
    """Platform, its name for the job, and its count of attempts at it."""
    if job := environ.get("AWS_BATCH_JOB_ID"):
        attempt = environ.get("AWS_BATCH_JOB_ATTEMPT", "")
        return "aws-batch", job, int(attempt) if attempt.isdecimal() else None
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes", environ.get(POD_UID) or environ.get("HOSTNAME", ""), None
    return "local", "", None


def _memory_bytes(root: Path) -> int:
    try:
        return cgroup.memory_limit_bytes(root)
    except SettingsError:  # no /proc/meminfo
        return 0


def _region(machine: Machine, placement: Placement, environ: Mapping[str, str]) -> str:
    """The zone's (`us-east-1a`, and `us-west-2-lax-1a` of us-west-2), else what AWS Batch tells a job; "" is unknown.

    Elsewhere AWS_REGION says where a store is, not where the machine stands.
    """
    if zone := _ZONE.match(placement.zone):
        return zone[1]
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", "") if machine.platform == "aws-batch" else ""


def _cpu_model(cpuinfo: Path) -> str:
    """As /proc/cpuinfo calls it; arm64 has no name there."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def _nvidia_smi(field: str) -> list[str]:
    """One answer for each GPU; none where there is no driver."""
    try:
        done = subprocess.run(  # noqa: S603  # the arguments are ours
            ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"],  # noqa: S607  # wherever the driver put it
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]

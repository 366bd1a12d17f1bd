"""What this machine is and who started the job, for an attempt's record. Asks /proc, nvidia-smi and the environment; no torch.

Which instance it is, where, and how it was bought is passed in as a `Placement`: only the cloud's own metadata service knows.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.contract.words import Market

CPUINFO = Path("/proc/cpuinfo")
NVIDIA_SMI_SECONDS_MAX = 10  # it takes one or two; a wedged driver never answers

POD_UID = "STEELYARD_POD_UID"
"""Set from `metadata.uid` by the Kubernetes manifest's downward API."""


class Placement(msgspec.Struct, frozen=True):
    """What is known about the instance; "" is unknown. `usd_per_hour` is its true price where the market was asked."""

    instance: str = ""
    zone: str = ""
    market: Market = "unknown"
    usd_per_hour: str | None = None


class Machine(msgspec.Struct, frozen=True):
    cpu: str
    cpus: int
    gpu: str
    gpus: int
    platform: str
    job: str = ""
    job_attempt: int | None = None


def this(environ: Mapping[str, str] = os.environ, *, cpuinfo: Path = CPUINFO) -> Machine:
    """Blocks for a second or two where there is a GPU."""
    gpus = _nvidia_smi("name")
    platform, job, job_attempt = _job(environ)
    return Machine(
        cpu=_cpu_model(cpuinfo),
        cpus=len(os.sched_getaffinity(0)),
        gpu=gpus[0] if gpus else "",
        gpus=len(gpus),
        platform=platform,
        job=job,
        job_attempt=job_attempt,
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

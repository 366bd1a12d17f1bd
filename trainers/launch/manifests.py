"""A job as a Kubernetes Job or CronJob: plain dictionaries with the published API's names. Pure; `kubernetes` prints them.

A pod runs one attempt and is never restarted in place. What a node's loss does to it does not count; exit codes that would come
again end the Job; everything else is tried again, as `policy` has it.
"""

import hashlib
import re
from typing import Any  # Any: a manifest is a tree of plain values

from trainers import exits
from trainers.launch import environment, policy
from trainers.launch.site import KubernetesSite
from trainers.runs.machine import POD_UID
from trainers.spec.jobspec import GRACE_S_MAX, JobSpec, Schedule

Manifest = dict[str, Any]

CONTAINER = "train"
COMMAND = ("steelyard", "train")
SCRATCH = "/scratch"
USER = 65532
"""Nobody: the number that distroless images call nonroot."""

KEPT_S = 7 * 86_400
"""How long a finished Job can still be looked at."""

NAME_LENGTH_MAX = 63
CRON_NAME_LENGTH_MAX = 52
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
_NOT_ALLOWED = re.compile(r"[^a-z0-9-]+")


def job(spec: JobSpec, site: KubernetesSite, *, run_id: str, store: str) -> Manifest:
    """A Job for one run."""
    environ = {environment.RUN_ID: run_id, environment.STORE: store}
    labels = _labels(spec) | {"steelyard/run": label(run_id)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(name(f"steelyard-{run_id}", NAME_LENGTH_MAX), site, labels),
        "spec": _job_spec(spec, site, environ, labels) | {"ttlSecondsAfterFinished": KEPT_S},
    }


def cron_job(spec: JobSpec, site: KubernetesSite, *, schedule: str, when: Schedule, store: str) -> Manifest:
    """A CronJob; its runs find their time in the name of the Job that it makes of it, whose last part is the minute."""
    environ = {environment.SCHEDULE: schedule, environment.STORE: store}
    labels = _labels(spec) | {"steelyard/schedule": label(schedule)}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(name(f"steelyard-{schedule}", CRON_NAME_LENGTH_MAX), site, labels),
        "spec": {
            "schedule": when.cron,
            "timeZone": when.timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": policy.LATE_S_MAX,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": labels}, "spec": _job_spec(spec, site, environ, labels)},
        },
    }


def notes(spec: JobSpec) -> tuple[str, ...]:
    """What of the spec Kubernetes cannot be told."""
    after = spec.market.fallback_on_demand_after
    found = []
    if after:
        found.append(
            f"market.fallback_on_demand_after = {after}: spot nodes are preferred, and any node will do at once"
        )
    if spec.resources.gpu_memory_gb is not None:
        found.append("resources.gpu_memory_gb: needs the label nvidia.com/gpu.memory of NVIDIA's GPU feature discovery")
    return tuple(found)


def name(text: str, length_max: int) -> str:
    """A DNS label; two texts that differ only in other signs do not get the same one."""
    plain = _NOT_ALLOWED.sub("-", text.lower()).strip("-")
    if plain != text or len(plain) > length_max:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        plain = f"{plain[: length_max - 9].rstrip('-')}-{digest}"
    return plain


def label(text: str) -> str:
    """A label's value: names of runs and schedules are one, but for a sign at the end."""
    return text[:NAME_LENGTH_MAX].rstrip("._-")


def _metadata(name_text: str, site: KubernetesSite, labels: dict[str, str]) -> Manifest:
    return {"name": name_text, "namespace": site.namespace, "labels": labels}


def _labels(spec: JobSpec) -> dict[str, str]:
    return {"app.kubernetes.io/name": "steelyard-train", "steelyard/job": label(spec.name)}


def _job_spec(spec: JobSpec, site: KubernetesSite, environ: dict[str, str], labels: dict[str, str]) -> Manifest:
    return {
        "backoffLimit": policy.ATTEMPTS_MAX - 1,
        "activeDeadlineSeconds": spec.limits.wall.seconds,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": _exit_codes("In")},
                {"action": "Count", "onExitCodes": _exit_codes("NotIn")},
            ]
        },
        "template": {"metadata": {"labels": labels}, "spec": _pod(spec, site, environ)},
    }


def _exit_codes(operator: str) -> Manifest:
    return {"containerName": CONTAINER, "operator": operator, "values": sorted(exits.FINAL)}


def _pod(spec: JobSpec, site: KubernetesSite, environ: dict[str, str]) -> Manifest:
    pod: Manifest = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": policy.killed_after_s(spec.limits.attempt.seconds),
        "terminationGracePeriodSeconds": GRACE_S_MAX,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # their variables would be many, and STEELYARD_... could be among them
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if site.service_account:
        pod["serviceAccountName"] = site.service_account
    if affinity := _affinity(spec):
        pod["affinity"] = {"nodeAffinity": affinity}
    if spec.resources.gpu:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return pod | {"containers": [_container(spec, site, environ)], "volumes": _volumes(spec)}


def _container(spec: JobSpec, site: KubernetesSite, environ: dict[str, str]) -> Manifest:
    assert spec.image is not None
    amounts = _amounts(spec)
    given = environment.written(spec, launcher="kubernetes") | environ | {"HOME": SCRATCH, "TMPDIR": "/tmp"}  # noqa: S108
    container: Manifest = {
        "name": CONTAINER,
        "image": spec.image,
        "command": list(COMMAND),
        "workingDir": SCRATCH,
        "env": [
            *({"name": key, "value": given[key]} for key in sorted(given)),
            _from_pod(environment.JOB, f"metadata.labels['{JOB_NAME_LABEL}']"),
            _from_pod(POD_UID, "metadata.uid"),
        ],
    }
    if site.secret:
        container["envFrom"] = [{"secretRef": {"name": site.secret}}]
    return container | {
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - where the loader's processes share memory
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
        ],
    }


def _from_pod(name_text: str, field: str) -> Manifest:
    return {"name": name_text, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _amounts(spec: JobSpec) -> dict[str, str]:
    """Requests and limits are equal: the pod is guaranteed what it asked for, and evicted last."""
    wanted = spec.resources
    amounts = {"cpu": str(wanted.cpu), "memory": _mebibytes(wanted.memory_gb)}
    if wanted.disk_gb is not None:
        amounts["ephemeral-storage"] = _mebibytes(wanted.disk_gb)
    if wanted.gpu:
        amounts["nvidia.com/gpu"] = str(wanted.gpu)
    return amounts


def _volumes(spec: JobSpec) -> list[Manifest]:
    disk = {"sizeLimit": _mebibytes(spec.resources.disk_gb)} if spec.resources.disk_gb is not None else {}
    return [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _mebibytes(spec.resources.shm_gb)}},
        {"name": "scratch", "emptyDir": disk},
        {"name": "tmp", "emptyDir": {}},
    ]


def _affinity(spec: JobSpec) -> Manifest:
    affinity: Manifest = {}
    if spec.resources.gpu_memory_gb is not None:
        # A card sold as 16 GB reports 15,360 MiB or a little less; a tenth below is no smaller card.
        least = str(round(spec.resources.gpu_memory_gb * 1024 * 0.9) - 1)
        rule = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [least]}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": [rule]}]
        }
    if spec.market.prefer == "spot":
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": values}]}}
            for key, values in SPOT_LABELS
        ]
    return affinity


SPOT_LABELS = (
    ("karpenter.sh/capacity-type", ["spot"]),
    ("eks.amazonaws.com/capacityType", ["SPOT"]),
    ("cloud.google.com/gke-spot", ["true"]),
)
"""How Karpenter, EKS and GKE mark spot nodes; a preference for a label that no node has does nothing."""


def _mebibytes(gigabytes: float) -> str:
    return f"{round(gigabytes * 1024)}Mi"

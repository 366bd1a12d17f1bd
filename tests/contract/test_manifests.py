"""Kubernetes manifests: the same spec is the same text, the published schemas accept it, it says what the reference asks for."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support import specs
from trainers.errors import SpecError
from trainers.launch import environment, manifests, yamltext
from trainers.launch.kubernetes import Kubernetes
from trainers.launch.launcher import Order
from trainers.launch.site import KubernetesSite
from trainers.spec import reading
from trainers.spec.jobspec import JobSpec, Schedule

GOLDEN = Path("tests/contract/golden/launch")
STORE = "s3://models/steelyard"
SITE = KubernetesSite(namespace="ml", service_account="trainer", secret="store-credentials")
WHEN = Schedule(cron="0 3 * * 1", timezone="Europe/Paris")
VERSIONS = ["1.31", "1.37"]  # podFailurePolicy is stable since the first


def full(**options: Any) -> JobSpec:
    return reading.parse(specs.toml(specs.full()), source="job.toml", options=options)


def plain() -> JobSpec:
    """Without a GPU, and with nothing that may be left out."""
    return reading.from_options({"recipe": "flights", "image": f"r/t@{specs.DIGEST}", "market.prefer": "on_demand"})


def job(spec: JobSpec, site: KubernetesSite = SITE) -> dict[str, Any]:
    return manifests.job(spec, site, run_id="flights-delay-20261125", store=STORE)


def cron_job(spec: JobSpec) -> dict[str, Any]:
    return manifests.cron_job(spec, SITE, schedule="weekly", when=WHEN, store=STORE)


MANIFESTS = {
    "kubernetes-job-v1.yaml": lambda: job(full()),
    "kubernetes-job-plain-v1.yaml": lambda: job(plain(), KubernetesSite()),
    "kubernetes-cronjob-v1.yaml": lambda: cron_job(full()),
}


@pytest.mark.parametrize("file", MANIFESTS)
def test_the_same_spec_is_the_same_text(file: str) -> None:
    assert yamltext.document(MANIFESTS[file]()) == (GOLDEN / file).read_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", MANIFESTS)
def test_the_published_schemas_accept_it(file: str, version: str) -> None:
    manifest = yaml.safe_load((GOLDEN / file).read_text())
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("file", MANIFESTS)
def test_the_schemas_would_notice(file: str) -> None:
    manifest = yaml.safe_load((GOLDEN / file).read_text())
    wrong = copy.deepcopy(manifest)
    inner = wrong["spec"]["jobTemplate"]["spec"] if wrong["kind"] == "CronJob" else wrong["spec"]
    inner["podFailurePolicie"] = inner.pop("podFailurePolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_ends_are_treated_as_everywhere_else() -> None:
    spec = job(full())["spec"]
    ignore, fail, count = spec["podFailurePolicy"]["rules"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [64, 65, 66, 70, 73])
    assert (count["action"], count["onExitCodes"]["operator"]) == ("Count", "NotIn")
    pod = spec["template"]["spec"]
    assert {rule["onExitCodes"]["containerName"] for rule in (fail, count)} == {pod["containers"][0]["name"]}
    assert (pod["restartPolicy"], spec["backoffLimit"]) == ("Never", 9)


def test_limits_become_deadlines() -> None:
    spec = job(full())["spec"]
    pod = spec["template"]["spec"]
    assert spec["activeDeadlineSeconds"] == 12 * 3600
    assert pod["activeDeadlineSeconds"] == 6 * 3600 * 11 // 10
    assert pod["terminationGracePeriodSeconds"] == 110


def test_a_gpu_is_asked_for_with_its_memory() -> None:
    pod = job(full())["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (rule,) = required["nodeSelectorTerms"][0]["matchExpressions"]
    assert (rule["operator"], rule["values"]) == ("Gt", ["14745"])  # a T4 says 15,360 MiB or a little less
    assert "tolerations" not in job(plain())["spec"]["template"]["spec"]


def test_it_runs_as_nobody_and_writes_only_where_it_may() -> None:
    pod = job(full())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "4096Mi"}


def test_a_scheduled_pod_finds_its_run_in_the_jobs_name() -> None:
    manifest = cron_job(full())
    assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
    assert manifest["spec"]["timeZone"] == "Europe/Paris"
    pod = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    environ = {pair["name"]: pair["value"] for pair in pod["containers"][0]["env"] if "value" in pair}
    made = f"{manifest['metadata']['name']}-29933460"  # as the CronJob controller names its Jobs: minutes since 1970
    assigned = environment.assignment(environ | {environment.JOB: made})
    assert assigned is not None
    assert (assigned.run_id, assigned.spec, assigned.attempt) == ("weekly-20261130t030000z", full(), None)


def test_starting_prints_and_does_not_pretend() -> None:
    started = Kubernetes(SITE).start(Order(spec=full(), run_id="flights-delay-20261125", store=STORE))
    assert started.is_submitted is False
    assert started.manifest == (GOLDEN / "kubernetes-job-v1.yaml").read_text()
    assert started.notes[0] == "nothing was submitted; pipe this into: kubectl apply -f -"


def test_an_image_without_digest_is_refused() -> None:
    with pytest.raises(SpecError, match="has no digest"):
        Kubernetes(SITE).start(Order(spec=full(image="r/t:1"), run_id="r", store=STORE))


@given(st.text(min_size=1, max_size=120), st.integers(20, 63))
def test_any_name_becomes_a_dns_label(text: str, length_max: int) -> None:
    name = manifests.name(f"steelyard-{text}", length_max)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= length_max


def test_names_that_differ_only_in_signs_stay_different() -> None:
    assert manifests.name("a.b", 63) != manifests.name("a-b", 63) != manifests.name("a_b", 63)


SCALARS = st.text() | st.integers(-(2**53), 2**53) | st.booleans()
KEYS = st.text(max_size=63)  # a label's name; the reader takes no key of more than 1,024 escaped characters
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(TREES)
def test_yaml_reads_back_as_it_was(tree: Any) -> None:
    assert yaml.safe_load(yamltext.document(tree)) == tree


@pytest.mark.parametrize("text", ["no", "ON", "12:30", "1e3", "0x10", "~", "-", "a: b", "2026-11-30", "", " x", "\x85"])
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert yaml.safe_load(yamltext.document({text: [text]})) == {text: [text]}

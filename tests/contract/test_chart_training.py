"""The chart's Jobs and CronJobs are those that `steelyard train|schedule --on kubernetes` prints, for every spec."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import charts, specs
from trainers.launch import environment, manifests
from trainers.launch.site import KubernetesSite
from trainers.spec import jobspec, reading
from trainers.spec.jobspec import JobSpec

STORE = "s3://models/steelyard"
IMAGE = f"registry.example.com/train@{specs.DIGEST}"

durations = st.sampled_from(["90s", "30m", "1h30m", "12h", "7d", "1d2h3m4s", "100s"])
quarters = st.integers(1, 4 * 512).map(lambda n: n / 4)
resources = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.integers(1, 448),
        "memory_gb": quarters,
        "shm_gb": quarters,
        "gpu": st.integers(0, 8),
        "gpu_memory_gb": st.sampled_from([16, 24, 40, 80, 141]),
        "disk_gb": quarters,
    },
)
jobs = st.fixed_dictionaries(
    {"name": st.sampled_from(["flights", "a-b", "x1"]), "recipe": st.just("flights"), "image": st.just(IMAGE)},
    optional={
        "params": st.dictionaries(
            st.sampled_from("abc"), st.integers(-(2**40), 2**40) | st.booleans() | st.text("<&>'\"\\ é✓", max_size=5)
        ),
        "resources": resources,
        "market": st.fixed_dictionaries({"prefer": st.sampled_from(["spot", "on_demand"])}),
        "limits": st.fixed_dictionaries({"wall": durations, "attempt": durations}),
        "target": st.just({"batch_mix": {"8": 0.5}}),
        "schedule": st.fixed_dictionaries(
            {"cron": st.sampled_from(["0 3 * * 1", "*/5 * * * *"])}, optional={"timezone": st.just("Europe/Paris")}
        ),
    },
)


@settings(max_examples=30, deadline=None)
@given(jobs, st.sampled_from(["", "store-credentials"]), st.sampled_from(["", "trainer"]))
def test_the_chart_writes_what_the_launcher_prints(job: dict[str, Any], secret: str, account: str) -> None:
    values = charts.example("none")
    values["store"]["secret"] = secret
    values["training"] = {"serviceAccount": {"create": False, "name": account}, "jobs": {"weekly": {"spec": job}}}
    spec = reading.submitted(json.dumps(job), source="the test")
    site = KubernetesSite(namespace=charts.NAMESPACE, service_account=account, secret=secret)
    expected = printed(spec, site)
    made = charts.one(charts.documents(values), expected["kind"])
    assert spec_of(made) == spec
    assert without_spec(made) == without_spec(expected)


def test_a_scheduled_pod_of_the_chart_finds_its_run() -> None:
    made = charts.one(charts.documents(charts.example("hpa")), "CronJob")
    (container,) = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    environ = {pair["name"]: pair["value"] for pair in container["env"] if "value" in pair}
    job = f"{made['metadata']['name']}-29933460"  # as the CronJob controller names its Jobs: minutes since 1970
    assigned = environment.assignment(environ | {environment.JOB: job})
    assert assigned is not None
    assert (assigned.run_id, assigned.store) == ("weekly-20261130t030000z", STORE)
    assert jobspec.spec_sha256(assigned.spec) == jobspec.spec_sha256(example_spec())


@pytest.mark.parametrize("mode", ["keda", "knative", "none"])
def test_without_jobs_there_is_nothing_of_training(mode: str) -> None:
    assert "steelyard-train" not in charts.text(charts.example(mode))


def printed(spec: JobSpec, site: KubernetesSite) -> dict[str, Any]:
    if spec.schedule:
        return manifests.cron_job(spec, site, schedule="weekly", when=spec.schedule, store=STORE)
    return manifests.job(spec, site, run_id="weekly", store=STORE)


def example_spec() -> JobSpec:
    """As `steelyard schedule add job.toml` reads the example's job."""
    job = charts.example("hpa")["training"]["jobs"]["weekly"]["spec"]
    return reading.parse(specs.toml(job), source="job.toml")


def spec_of(manifest: dict[str, Any]) -> JobSpec:
    return reading.submitted(_spec_pair(manifest)["value"], source="the chart")


def without_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    """With the spec's text, which may be written in several ways, replaced."""
    copied: dict[str, Any] = json.loads(json.dumps(manifest))
    _spec_pair(copied)["value"] = ""
    return copied


def _spec_pair(manifest: dict[str, Any]) -> dict[str, Any]:
    job = manifest["spec"]["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else manifest["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (pair,) = (pair for pair in container["env"] if pair["name"] == environment.SPEC)
    found: dict[str, Any] = pair
    return found

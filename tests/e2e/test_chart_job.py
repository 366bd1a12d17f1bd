"""From values to a prediction: the chart's Job trains and publishes by its own environment, and a gateway answers with it."""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import charts, gateways, models, specs
from tests.support.servers import S3Server

pytestmark = pytest.mark.e2e

IMAGE = f"registry.example.com/train@{specs.DIGEST}"
SPEC = {
    "name": "tiny",
    "recipe": "tests.support.tinyjob:tiny_job",
    "image": IMAGE,
    "market": {"prefer": "on_demand"},
    "checkpoint": {"every": "10m"},
}


def test_the_charts_job_trains_what_the_charts_gateway_serves(moto: S3Server, tmp_path: Path) -> None:
    store = f"s3://bucket-{secrets.token_hex(6)}/team"
    with moto.client() as client:
        client.create_bucket(Bucket=store.split("/")[2])
    values = charts.example("none")
    values["store"] = {"url": store, "region": "us-east-1", "endpoint": moto.url, "secret": "keys"}
    values["training"] = {"jobs": {"tiny-20261125": {"spec": SPEC}}}
    manifests = charts.documents(values)
    environ = os.environ | moto.environment() | given(manifests, tmp_path)  # the last but one is what the Secret holds
    command = [sys.executable, "-m", "gateway", *words(manifests)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    with gateways.running(store, tmp_path, **moto.environment()) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [dict(models.TINY_EXAMPLES.rows[0])]})
        assert (answer.status, answer.json["version"]) == (200, 1)
        assert gateway.terminate() == 0


def words(manifests: list[dict[str, Any]]) -> list[str]:
    """Behind `steelyard`, which is `python -m gateway`."""
    (container,) = charts.one(manifests, "Job")["spec"]["template"]["spec"]["containers"]
    program, *rest = container["command"]
    assert program == "steelyard"
    return list(rest)


def given(manifests: list[dict[str, Any]], scratch: Path) -> dict[str, str]:
    """What the kubelet would give the Job's container."""
    pod = charts.one(manifests, "Job")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    fields = {
        "metadata.labels['batch.kubernetes.io/job-name']": charts.one(manifests, "Job")["metadata"]["name"],
        "metadata.uid": "9d1f6f8e-0c5a-4d57-8a3e-1b1f3a3f6c11",
    }
    environ = {
        pair["name"]: pair["value"] if "value" in pair else fields[pair["valueFrom"]["fieldRef"]["fieldPath"]]
        for pair in container["env"]
    }
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {environ["HOME"], environ["TMPDIR"]} <= mounted
    return environ | {"HOME": str(scratch), "TMPDIR": str(scratch)}

"""From values to a prediction: the chart's Job trains and publishes by its own environment, and a gateway answers with it."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import charts, gateways, models, rootfs, specs
from tests.support.servers import S3Server
from trainers.launch.manifests import SCRATCH

pytestmark = pytest.mark.e2e

IMAGE = f"registry.example.com/train@{specs.DIGEST}"
SPEC = {
    "name": "tiny",
    "recipe": "tests.support.tinyjob:tiny_job",
    "image": IMAGE,
    "market": {"prefer": "on_demand"},
    "checkpoint": {"every": "10m"},
}


@pytest.fixture
def store(moto: S3Server) -> str:
    url = f"s3://bucket-{secrets.token_hex(6)}/team"
    with moto.client() as client:
        client.create_bucket(Bucket=url.split("/")[2])
    return url


def test_the_charts_job_trains_what_a_gateway_serves(moto: S3Server, store: str, tmp_path: Path) -> None:
    manifests = with_job(store, moto)
    environ = os.environ | moto.environment() | given(manifests) | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "gateway", *words(manifests)]
    for _ in range(2):  # Helm makes the Job again when its time to live is over: the same run, which is done
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    with gateways.running(store, tmp_path, **moto.environment()) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [dict(models.TINY_EXAMPLES.rows[0])]})
        assert (answer.status, answer.json["version"]) == (200, 1)
        assert gateway.terminate() == 0


def test_the_same_in_the_images_of_both(moto: S3Server, store: str, tmp_path: Path) -> None:
    """Trained by CUDA's torch on a CPU, as nobody, on a read-only root; served from the root filesystem without a shell."""
    roots = {name: Path(".rootfs") / name for name in ("trainer", "gateway")}
    reason = rootfs.missing() or next(
        (f"make rootfs IMAGE={name}" for name, root in roots.items() if not root.exists()), ""
    )
    if reason:
        pytest.skip(f"THE TRAINER'S IMAGE IS NOT TESTED: {reason}")
    shutil.copytree("tests", tmp_path / "code/tests", ignore=shutil.ignore_patterns("__pycache__"))
    manifests = with_job(store, moto)
    environ = rootfs.environment(roots["trainer"], "/opt/steelyard/bin", **moto.environment(), **given(manifests))
    training = rootfs.command(
        ["env", "-C", SCRATCH, "steelyard", *words(manifests)],
        volumes={SCRATCH: "2g", "/tmp": "1g", "/dev/shm": "1g"},
        folders={"/mnt": tmp_path / "code"},
    )
    done = subprocess.run(
        training, env=environ | {"PYTHONPATH": "/mnt"}, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    serving = rootfs.environment(roots["gateway"], "/opt/steelyard/bin", **moto.environment())
    asked = ["steelyard", "serve", "--store", store, "--host", "127.0.0.1", "--port", "0"]
    with rootfs.running(roots["gateway"], asked, tmp_path / "log", serving) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [dict(models.TINY_EXAMPLES.rows[0])]})
        assert (answer.status, answer.json["version"]) == (200, 1)
        assert gateway.terminate() == 0


def with_job(store: str, moto: S3Server) -> list[dict[str, Any]]:
    values = charts.example("none")
    values["store"] = {"url": store, "region": "us-east-1", "endpoint": moto.url, "secret": "keys"}
    values["training"] = {"jobs": {"tiny-20261125": {"spec": SPEC}}}
    return charts.documents(values)


def words(manifests: list[dict[str, Any]]) -> list[str]:
    """Behind `steelyard`, which is `python -m gateway`."""
    (container,) = charts.one(manifests, "Job")["spec"]["template"]["spec"]["containers"]
    program, *rest = container["command"]
    assert program == "steelyard"
    return list(rest)


def given(manifests: list[dict[str, Any]]) -> dict[str, str]:
    """What the kubelet would give the Job's container, but for the Secret."""
    job = charts.one(manifests, "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    fields = {
        "metadata.labels['batch.kubernetes.io/job-name']": job["metadata"]["name"],
        "metadata.uid": "9d1f6f8e-0c5a-4d57-8a3e-1b1f3a3f6c11",
    }
    environ = {
        pair["name"]: pair["value"] if "value" in pair else fields[pair["valueFrom"]["fieldRef"]["fieldPath"]]
        for pair in container["env"]
    }
    assert {environ["HOME"], environ["TMPDIR"]} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    return environ

"""What the chart says about the gateway is true of the gateway: times, ports, paths, sizes; and its pod's own words start one."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from click import Context

from gateway import cgroup, settings
from gateway.cli.serve import serve
from gateway.objectstore.opening import open_store
from gateway.telemetry import definitions
from tests.support import charts, gateways, models, stores
from tests.support.servers import S3Server

DEPLOYED = [mode for mode in charts.MODES if mode != "knative"]
POD = "shop-steelyard-5c9d8b7f6-abcde"


@pytest.mark.parametrize("mode", DEPLOYED)
def test_the_kill_comes_after_the_drain_and_the_drain_after_the_last_deadline(mode: str, tmp_path: Path) -> None:
    manifests = charts.documents(charts.example(mode))
    pod = charts.one(manifests, "Deployment")["spec"]["template"]["spec"]
    notice_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    used = loaded(manifests, tmp_path)
    exit_s = (
        used.server.linger_s
        + used.server.drain_s
        + 2 * used.runtime.stop_s
        + used.ledger.drain_s
        + used.features.drain_s
    )
    assert pod["terminationGracePeriodSeconds"] > notice_s + exit_s
    assert exit_s > used.server.drain_s > used.timeout_s


def test_knative_gives_as_much_time(tmp_path: Path) -> None:
    manifests = charts.documents(charts.example("knative"))
    spec = charts.one(manifests, "Service")["spec"]["template"]["spec"]
    used = loaded(manifests, tmp_path)
    assert spec["timeoutSeconds"] > used.server.drain_s + used.ledger.drain_s > used.timeout_s


@pytest.mark.parametrize("mode", charts.MODES)
def test_the_arguments_are_the_commands_own(mode: str) -> None:
    container = charts.container(charts.documents(charts.example(mode)))
    assert container["command"] == ["steelyard", "serve"]
    with Context(serve) as context:
        serve.parse_args(context, list(container["args"]))
    assert context.params["port"] == container["ports"][0]["containerPort"]
    assert str(context.params["config"]).startswith(mounts(container)["settings"])


@pytest.mark.parametrize("mode", charts.MODES)
def test_it_writes_only_into_its_volumes(mode: str, tmp_path: Path) -> None:
    manifests = charts.documents(charts.example(mode))
    container = charts.container(manifests)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert environ(container)["STEELYARD_REPOSITORY__CACHE_DIR"] == mounts(container)["cache"]
    assert mounts(container)["tmp"] == "/tmp"
    owner = next(
        found
        for found in manifests
        if "template" in found.get("spec", {}) and found["kind"] in {"Deployment", "Service"}
    )
    volumes = {volume["name"]: volume for volume in owner["spec"]["template"]["spec"]["volumes"]}
    limit = int(volumes["cache"]["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30
    used = loaded(manifests, tmp_path)
    assert limit > used.repository.cache_bytes_max + used.ledger.spill_bytes_max
    assert used.ledger.spill_dir == ""  # in the cache


@pytest.mark.parametrize("mode", DEPLOYED)
def test_everybody_means_the_same_pods_and_the_same_port(mode: str) -> None:
    manifests = charts.documents(charts.example(mode))
    deployment = charts.one(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    policy = next(
        found for found in manifests if found["kind"] == "NetworkPolicy" and "training" not in found["metadata"]["name"]
    )
    service, budget = charts.one(manifests, "Service"), charts.one(manifests, "PodDisruptionBudget")
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["containerPort"]}]


def test_what_scales_is_the_deployment_and_what_it_scales_on_exists() -> None:
    gauge = definitions.SATURATION.name
    hpa, keda = charts.documents(charts.example("hpa")), charts.documents(charts.example("keda"))
    target = charts.one(hpa, "HorizontalPodAutoscaler")["spec"]
    assert target["scaleTargetRef"]["name"] == charts.one(hpa, "Deployment")["metadata"]["name"]
    assert target["metrics"][0]["pods"]["metric"]["name"] == gauge
    scaled = charts.one(keda, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == charts.one(keda, "Deployment")["metadata"]["name"]
    assert scaled["triggers"][0]["metadata"]["query"].startswith(f"sum({gauge}{{")
    for manifests in (hpa, keda):
        assert (
            "replicas" not in charts.one(manifests, "Deployment")["spec"]
        )  # else every upgrade would undo the scaling


def test_the_gateway_counts_the_cpus_and_the_memory_that_the_chart_gives(tmp_path: Path) -> None:
    """As the kubelet writes limits into cgroup v2."""
    limits = charts.container(charts.documents(charts.example("none")))["resources"]["limits"]
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(f"{int(limits['cpu']) * 100_000} 100000\n")
    (group / "memory.max").write_text(f"{int(limits['memory'].removesuffix('Gi')) << 30}\n")
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 268435456 kB\n")
    assert cgroup.cpu_limit_milli(tmp_path, host_cpus=64) == 2000
    assert cgroup.memory_limit_bytes(tmp_path) == 4 << 30


@pytest.mark.parametrize("mode", DEPLOYED)
def test_the_pod_has_no_more_rights_than_the_strictest_standard_gives(mode: str) -> None:
    pod = charts.one(charts.documents(charts.example(mode)), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    for held in (pod["securityContext"], container["securityContext"]):
        assert (held["runAsNonRoot"], held["runAsUser"], held["seccompProfile"]) == (
            True,
            65532,
            {"type": "RuntimeDefault"},
        )
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_pods_own_words_start_a_gateway_that_its_probes_find_well(
    moto: S3Server, tmp_path: Path, monkeypatch: Any
) -> None:
    store = f"s3://{stores.bucket(moto, monkeypatch)}/team"
    asyncio.run(published(store))
    values = charts.example("none")
    values["store"] = {"url": store, "region": "us-east-1", "endpoint": moto.url, "secret": "keys"}
    values["settings"] = {"preload": ["tiny"], "server": {"linger_s": 0.1}}
    manifests = charts.documents(values)
    container = charts.container(manifests)
    given = environ(container) | {"STEELYARD_ACCOUNTING__CONTAINER_ID": POD}
    given["STEELYARD_REPOSITORY__CACHE_DIR"] = str(tmp_path / "cache")
    words = [word.replace("/etc/steelyard", str(written(manifests, tmp_path))) for word in container["args"]]
    loopback = ("--host=127.0.0.1", "--port=0")  # a test listens nowhere else
    with gateways.running(store, tmp_path, *words, *loopback, **given) as gateway:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert gateway.get(container[probe]["httpGet"]["path"]).status == 200
        answer = gateway.post("/v1/predict/tiny", {"rows": [dict(models.TINY_EXAMPLES.rows[0])]})
        assert answer.status == 200
        assert gateway.terminate() == 0
        assert f"container {POD}, store {store}" in gateway.log.read_text()


async def published(url: str) -> None:
    async with contextlib.aclosing(open_store(url)) as store:
        await models.publish_tiny(store)


def written(manifests: list[dict[str, Any]], folder: Path) -> Path:
    """The ConfigMap as the kubelet mounts it."""
    for name, text in charts.one(manifests, "ConfigMap")["data"].items():
        (folder / name).write_text(text)
    return folder


def loaded(manifests: list[dict[str, Any]], folder: Path) -> settings.Settings:
    return settings.load(written(manifests, folder) / "gateway.toml", environ={})


def environ(container: dict[str, Any]) -> dict[str, str]:
    return {pair["name"]: pair["value"] for pair in container["env"] if "value" in pair}


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

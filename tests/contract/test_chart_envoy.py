"""Envoy in the chart: the shipped file to the byte, before the gateways and nobody else; and it starts with its pod's own words."""

import hashlib
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gateway.cli.envoy import envoy
from gateway.cluster import envoyfile, programs
from infra.k8s import envoytemplate
from tests.support import charts, edges, stubs

NAME, GATEWAYS = "shop-steelyard-envoy", "shop-steelyard-gateways"


@pytest.mark.parametrize("port", [8080, 9090])
def test_the_file_is_what_the_command_prints(port: int) -> None:
    manifests = charts.documents(charts.example("envoy") | {"port": port})
    printed = CliRunner().invoke(envoy, ["--listen", "0.0.0.0:8080", "--dns", f"{GATEWAYS}:{port}"])
    assert printed.exit_code == 0
    assert file(manifests) == printed.stdout
    headless = named(manifests, "Service", GATEWAYS)["spec"]
    (container,) = pod(manifests, "shop-steelyard")["containers"]
    # No port is translated on the way to an address of a headless service.
    assert headless["ports"][0]["port"] == container["ports"][0]["containerPort"] == port


def test_braces_that_look_like_helms_own_stay_what_they_are() -> None:
    text = 'a: {{b: "}}"}}\nc: {{{d: 1}}}'
    assert envoytemplate._left_to_helm(text).replace('{{ "{{" }}', "{{") == text
    assert envoytemplate._left_to_helm(text).count('{{ "{{" }}') == text.count("{{")


def test_envoy_takes_the_file_with_the_pods_own_words(tmp_path: Path) -> None:
    manifests = charts.documents(charts.example("envoy"))
    done = started(manifests, tmp_path, "--mode", "validate")
    assert done.returncode == 0, done.stderr
    broken = json.loads(json.dumps(manifests).replace("lb_policy: MAGLEV", "lb_policy: MAGIC"))
    assert started(broken, tmp_path, "--mode", "validate").returncode != 0


def started(manifests: list[dict[str, Any]], folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The container's command with its ConfigMap mounted, to its end."""
    (container,) = pod(manifests, NAME)["containers"]
    (mount,) = container["volumeMounts"]
    assert container["command"] == ["envoy"]
    words = [word.replace(mount["mountPath"], str(folder)) for word in container["args"]]
    (folder / "gateway.yaml").write_text(file(manifests))
    command = [programs.find("envoy"), *words, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=envoyfile.VALIDATE_S, check=False)


def test_the_file_sends_requests_to_what_the_name_means(tmp_path: Path) -> None:
    with stubs.running() as pair, edges.running(tmp_path, pair.stubs[:1], text=here(pair.stubs[0].port)) as edge:
        answers = [edge.get("/v2/health/ready"), edge.post("/v1/predict/tiny", {"rows": []}), edge.get("/metrics")]
        assert [answer.status for answer in answers] == [200, 200, 404]
        assert [seen.path for seen in pair.seen] == ["/v1/predict/tiny"]


def test_with_no_gateway_ready_it_listens_and_has_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as bound:  # and nobody listens
        bound.bind(("127.0.0.1", 0))
        with edges.running(tmp_path, [], text=here(bound.getsockname()[1])) as edge:
            answer = edge.post("/v1/predict/tiny", {"rows": []})
    assert (answer.status, answer.json) == (503, {"error": "no gateway is ready; try again"})


def here(port: int) -> str:
    """The chart's file with this machine in place of the headless service, whose name means something in a cluster only."""
    text = file(charts.documents(charts.example("envoy") | {"port": port}))
    assert text.count(f'"{GATEWAYS}"') == 2
    return text.replace(f'"{GATEWAYS}"', '"127.0.0.1"')


def test_everybody_means_the_right_pods() -> None:
    manifests = charts.documents(charts.example("envoy"))
    gateways, front = (labels(manifests, name) for name in ("shop-steelyard", NAME))
    of_envoy = [
        named(manifests, "Service", "shop-steelyard")["spec"]["selector"],
        named(manifests, "Deployment", NAME)["spec"]["selector"]["matchLabels"],
        named(manifests, "PodDisruptionBudget", NAME)["spec"]["selector"]["matchLabels"],
        named(manifests, "NetworkPolicy", NAME)["spec"]["podSelector"]["matchLabels"],
        *(rule["labelSelector"]["matchLabels"] for rule in pod(manifests, NAME)["topologySpreadConstraints"]),
    ]
    of_gateways = [
        named(manifests, "Service", GATEWAYS)["spec"]["selector"],
        named(manifests, "Deployment", "shop-steelyard")["spec"]["selector"]["matchLabels"],
        named(manifests, "PodDisruptionBudget", "shop-steelyard")["spec"]["selector"]["matchLabels"],
        named(manifests, "NetworkPolicy", "shop-steelyard")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= front and not selector.items() <= gateways for selector in of_envoy)
    assert all(selector.items() <= gateways and not selector.items() <= front for selector in of_gateways)


def test_envoy_itself_asks_each_gateway_whether_it_is_ready() -> None:
    spec = named(charts.documents(charts.example("envoy")), "Service", GATEWAYS)["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)


def test_envoy_stands_between_callers_and_gateways() -> None:
    values = charts.example("envoy")
    manifests = charts.documents(values)
    gateways, front = labels(manifests, "shop-steelyard"), labels(manifests, NAME)
    inner = named(manifests, "NetworkPolicy", "shop-steelyard")["spec"]
    outer = named(manifests, "NetworkPolicy", NAME)["spec"]
    (only,) = inner["ingress"]
    assert only["from"][0]["podSelector"]["matchLabels"].items() <= front
    assert only["from"][1:] == values["envoy"]["scrapers"]
    (callers,) = outer["ingress"]
    (listening,) = pod(manifests, NAME)["containers"][0]["ports"]
    assert callers == {
        "ports": [{"protocol": "TCP", "port": listening["containerPort"]}],
        "from": values["networkPolicy"]["from"],
    }
    names, onward = outer["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    (peer,) = onward["to"]
    assert peer["podSelector"]["matchLabels"].items() <= gateways
    assert onward["ports"] == only["ports"]
    assert outer["policyTypes"] == ["Ingress", "Egress"]


def test_the_service_and_the_probes_mean_the_port_that_the_file_listens_on() -> None:
    manifests = charts.documents(charts.example("envoy"))
    parsed = yaml.safe_load(file(manifests))
    (container,) = pod(manifests, NAME)["containers"]
    (port,) = container["ports"]
    listener = parsed["static_resources"]["listeners"][0]["address"]["socket_address"]
    assert listener == {"address": "0.0.0.0", "port_value": port["containerPort"]}
    assert named(manifests, "Service", "shop-steelyard")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert {container[probe]["tcpSocket"]["port"] for probe in ("startupProbe", "readinessProbe")} == {port["name"]}
    assert parsed["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_its_pod_has_no_more_rights_than_the_gateways() -> None:
    manifests = charts.documents(charts.example("envoy"))
    ours, theirs = pod(manifests, NAME), pod(manifests, "shop-steelyard")
    assert ours["securityContext"] == theirs["securityContext"]
    assert ours["containers"][0]["securityContext"] == theirs["containers"][0]["securityContext"]
    assert ours["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in ours  # the gateways' role is not Envoy's
    assert [list(volume) for volume in ours["volumes"]] == [["name", "configMap"]]


def test_a_stop_waits_for_the_oldest_connection_and_the_slowest_answer() -> None:
    manifests = charts.documents(charts.example("envoy"))
    known = envoytemplate.limits(yaml.safe_load(file(manifests)))
    (container,) = pod(manifests, NAME)["containers"]
    notice_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(manifests, NAME)["terminationGracePeriodSeconds"] > notice_s > known["age_s"] + known["answer_s"]
    assert known == {
        "answer_s": 31,
        "idle_s": 30,
        "age_s": 75,
        "body_bytes_max": 16 << 20,
        "head_bytes_max": 32 << 10,
        "headers_max": 100,
        "heap_bytes_max": 1 << 30,
    }


def test_a_new_file_is_new_pods() -> None:
    values = charts.example("envoy")
    before, after = charts.documents(values), charts.documents(values | {"port": 9090})
    assert checksum(before) != checksum(after)
    assert checksum(before) == hashlib.sha256(file(before).rstrip("\n").encode()).hexdigest()


def test_without_it_no_trace_is_left() -> None:
    for mode in charts.MODES:
        text = charts.text(charts.example(mode))
        assert NAME not in text
        assert GATEWAYS not in text


def test_what_is_written_of_its_own_pod_arrives() -> None:
    values = charts.example("envoy")
    values["envoy"]["pod"] = {"annotations": {"a": "1"}, "labels": {"team": "x"}, "nodeSelector": {"pool": "front"}}
    values["envoy"]["image"]["pullSecrets"] = ["registry"]
    manifests = charts.documents(values)
    assert labels(manifests, NAME) >= {("team", "x")}
    assert pod(manifests, NAME)["nodeSelector"] == {"pool": "front"}
    assert pod(manifests, NAME)["imagePullSecrets"] == [{"name": "registry"}]
    assert "nodeSelector" not in pod(manifests, "shop-steelyard")


def named(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return charts.one([found for found in manifests if found["metadata"]["name"] == name], kind)


def file(manifests: list[dict[str, Any]]) -> str:
    return str(named(manifests, "ConfigMap", NAME)["data"]["gateway.yaml"])


def pod(manifests: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return dict(named(manifests, "Deployment", name)["spec"]["template"]["spec"])


def labels(manifests: list[dict[str, Any]], name: str) -> Any:
    return named(manifests, "Deployment", name)["spec"]["template"]["metadata"]["labels"].items()


def checksum(manifests: list[dict[str, Any]]) -> str:
    return str(named(manifests, "Deployment", NAME)["spec"]["template"]["metadata"]["annotations"]["checksum/envoy"])

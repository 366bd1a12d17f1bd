"""The shipped Envoy file: valid as it is and with other values, refused with a sentence, and of the gateway's own limits."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gateway.cli.envoy import envoy
from gateway.cluster import envoyfile
from gateway.cluster.envoyfile import Address
from gateway.errors import SettingsError
from gateway.http.options import HttpOptions
from gateway.http.service import Service
from gateway.runtime.admission import AdmissionOptions
from gateway.settings import Settings

SHIPPED = envoyfile.shipped()
FOLDER = Path(__file__).parents[2] / "infra" / "envoy"


def test_the_shipped_file_is_valid() -> None:
    envoyfile.validate(SHIPPED, "the shipped file")


def test_it_is_valid_for_gateways_behind_one_name() -> None:
    text = CliRunner().invoke(envoy, ["--dns", "gateways.internal:8080", "--listen", "0.0.0.0:80"]).stdout
    envoyfile.validate(text, "the file for DNS")
    parsed = yaml.safe_load(text)["static_resources"]
    assert [cluster["type"] for cluster in parsed["clusters"]] == ["STRICT_DNS", "STRICT_DNS"]
    assert parsed["listeners"][0]["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 80}
    changed = [line for line in text.splitlines() if line not in SHIPPED.splitlines()]
    assert len(changed) == 5  # the listener, and two lines for each of two clusters


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("cluster: by_model\n", "cluster: nobody\n", "unknown cluster 'nobody'"),
        ("    interval: 1s", "     interval: 1s", "line 198"),
        ("timeout: 31s", "timeoutt: 31s", "no such field: 'timeoutt'"),
        ("timeout: 31s", "timeout: 31q", "duration must end with a single 's'"),
        ("lb_policy: MAGLEV", "lb_policy: MAGIC", "unknown enum value: 'MAGIC'"),
        (SHIPPED, "nonsense: [", "yaml-cpp: error"),
    ],
)
def test_a_wrong_file_is_a_sentence(right: str, wrong: str, reason: str) -> None:
    assert right in SHIPPED
    with pytest.raises(SettingsError) as refused:
        envoyfile.validate(SHIPPED.replace(right, wrong), "mine.yaml")
    assert str(refused.value).startswith("Envoy refuses mine.yaml: ")
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_a_file_without_the_marked_lines_says_which_one_it_misses() -> None:
    with pytest.raises(SettingsError, match=r"no line 'socket_address: ... # listen'"):
        envoyfile.configured(SHIPPED.replace("# listen", ""), listen=Address("127.0.0.1", 1))


@pytest.mark.parametrize("text", ["8080", "localhost", "127.0.0.1:70000", "a b:1", "http://x:1", "[::1]", "x:1\n"])
def test_an_address_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match="is no address; write HOST:PORT"):
        envoyfile.parsed(text)


def test_the_shipped_endpoints_are_of_the_generated_shape() -> None:
    shipped = yaml.safe_load((FOLDER / "endpoints.yaml").read_text())
    addresses = [Address("127.0.0.1", port) for port in (8081, 8082, 8083)]
    assert {"version_info": "1", **yaml.safe_load(envoyfile.endpoints(addresses))} == shipped
    printed = CliRunner().invoke(envoy, [part for address in addresses for part in ("--endpoints", str(address))])
    assert printed.stdout == envoyfile.endpoints(addresses)


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_limits_are_the_gateways_own() -> None:
    file: dict[str, Any] = yaml.safe_load(SHIPPED)
    [listener] = file["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    server, timeout_s = HttpOptions(), Settings().timeout_s
    assert manager["max_request_headers_kb"] * 1024 == server.head_bytes_max
    assert manager["common_http_protocol_options"]["max_headers_count"] == server.headers_max
    assert manager["http_filters"][0]["typed_config"]["max_request_bytes"] == server.body_bytes_max
    host = manager["route_config"]["virtual_hosts"][0]
    assert host["request_body_buffer_limit"] == server.body_bytes_max
    routes = [route["route"] for route in host["routes"] if "route" in route]
    assert all(seconds(route["timeout"]) > timeout_s for route in routes)
    assert all(
        seconds(route.get("idle_timeout", manager["stream_idle_timeout"])) > seconds(route["timeout"])
        for route in routes
    )
    [loading] = [route for route in host["routes"] if route["match"].get("prefix") == "/v2/repository/models/"]
    assert seconds(loading["route"]["timeout"]) > Service.__struct_defaults__[-1]  # load_wait_s
    for cluster in file["static_resources"]["clusters"]:
        http = cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
        assert seconds(http["common_http_protocol_options"]["idle_timeout"]) < server.keep_alive_s
    bounds = file["static_resources"]["clusters"][0]["circuit_breakers"]
    assert bounds["per_host_thresholds"][0]["max_connections"] == AdmissionOptions().requests_max
    assert bounds["thresholds"][0]["max_requests"] == 4 * AdmissionOptions().requests_max
    assert file["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"

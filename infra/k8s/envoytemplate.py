"""templates/_envoy.tpl: infra/envoy/gateway.yaml as the chart gives it to Envoy, and what the chart must know of it.

The file is made by what `steelyard envoy` prints with; only the gateways' name and port are left to Helm. `infra.k8s.generate`
writes it.
"""

import json
from typing import Any  # a YAML file is a tree of plain values

import yaml

from gateway.cluster import envoyfile
from gateway.cluster.envoyfile import Address

LISTEN = Address("0.0.0.0", 8080)  # noqa: S104 - a pod's own address is not known before
NAME = Address("gateways.invalid", 1)
"""Stands for the headless service until Helm knows the release."""

MADE = "{{/* Made by `make chart` from infra/envoy/gateway.yaml: not to be edited. */}}\n"


def templates() -> str:
    """The file, its port, and its limits."""
    file = envoyfile.configured(envoyfile.shipped(), listen=LISTEN, dns=NAME)
    return (
        MADE
        + _defined("envoyPort", str(LISTEN.port))
        + _defined("envoyLimits", json.dumps(limits(yaml.safe_load(file))))
        + _defined("envoyFile", _left_to_helm(file).rstrip("\n"))
    )


def limits(file: Any) -> dict[str, int]:
    """What settings of gateways and the pod must fit: times in whole seconds, sizes in bytes."""
    listener = file["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    clusters = file["static_resources"]["clusters"]
    upstream = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = [cluster["typed_extension_protocol_options"][upstream] for cluster in clusters]
    common = manager["common_http_protocol_options"]
    return {
        "answer_s": min(_seconds(route["route"]["timeout"]) for route in routes if "route" in route),
        "idle_s": max(_seconds(option["common_http_protocol_options"]["idle_timeout"]) for option in options),
        "age_s": _seconds(common["max_connection_duration"]) + _seconds(manager["drain_timeout"]),
        "body_bytes_max": manager["http_filters"][0]["typed_config"]["max_request_bytes"],
        "head_bytes_max": manager["max_request_headers_kb"] * 1024,
        "headers_max": common["max_headers_count"],
        "heap_bytes_max": file["overload_manager"]["resource_monitors"][0]["typed_config"]["max_heap_size_bytes"],
    }


def _left_to_helm(file: str) -> str:
    """What is no action of ours must not look like one: `{{` is YAML too."""
    escaped = file.replace("{{", '{{ "{{" }}')
    name = '{{ include "steelyard.gateways" . | quote }}, port_value: {{ .Values.port }}}'
    return escaped.replace(f"{json.dumps(NAME.host)}, port_value: {NAME.port}}}", name)


def _defined(name: str, body: str) -> str:
    return f'{{{{- define "steelyard.{name}" -}}}}\n{body}\n{{{{- end -}}}}\n'


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))

"""What a real gateway tells about itself: metrics, a log without payloads, traces, the cold start record."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.accounting import segment
from gateway.contract import layout
from gateway.objectstore.local import LocalStore
from gateway.telemetry import definitions as d
from tests.support import collectors, gateways, models
from tests.support.gateways import Gateway
from tests.support.servers import free_ports

SENTINEL = "sentinelpayload4711"
KEY = "sk-sentinelkey4711"
ROW = models.TINY_EXAMPLES.rows[0]
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def gateway(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateways.running(store, tmp_path_factory.mktemp("gateway"), "--preload", "tiny") as running:
        yield running


def records(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log.read_text().splitlines()]


def samples(gateway: Gateway) -> dict[str, float]:
    """Values by sample, with its labels' values in the order of their names."""
    text = gateway.get("/metrics").body.decode()
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def predict(gateway: Gateway, rows: int = 1, **headers: str) -> dict[str, str]:
    answer = gateway.request("POST", "/v1/predict/tiny", {"rows": [ROW] * rows}, **headers)
    assert answer.status == 200, answer.body
    return answer.headers


def test_a_prediction_is_in_the_metrics_as_its_receipt_says(gateway: Gateway) -> None:
    before = samples(gateway)
    receipts = [predict(gateway, rows=rows) for rows in (1, 3)]
    gateway.post("/v1/predict/tiny", b"{")
    gateway.post("/v1/predict/nobody", {"rows": [ROW]})
    after = samples(gateway)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("steelyard_requests_total tiny ok 1") == 2
    assert grown("steelyard_requests_total tiny invalid 1") == 1
    assert grown("steelyard_refusals_total invalid") == 1
    assert grown("steelyard_refusals_total not_found") == 1
    assert grown("steelyard_request_seconds_count tiny 1") == 2
    assert grown("steelyard_batch_rows_sum tiny 1") == 4
    assert grown("steelyard_cost_picodollars_total tiny 1") >= sum(int(r["steelyard-cost-picousd"]) for r in receipts)
    assert not [name for name in after if "nobody" in name]


def test_what_a_gateway_shows_is_in_the_table_and_both_formats_are_read_by_their_parsers(gateway: Gateway) -> None:
    predict(gateway)
    answer = gateway.request("GET", "/metrics", None, accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(answer.body.decode())}
    table = {metric.name: metric for metric in d.METRICS}
    for name, family in families.items():
        assert (family.type, family.unit) == (table[name].kind, table[name].unit)
    classic = gateway.get("/metrics")
    assert classic.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert {family.name for family in text_string_to_metric_families(classic.body.decode())} == set(families)
    found = samples(gateway)
    assert found["steelyard_ready"] == 1
    assert found["steelyard_store_attempts_total get ok"] > 0
    assert found["steelyard_connections"] >= 1
    assert found["steelyard_resident_versions"] == 1
    assert found["steelyard_resident_bytes tiny fp32 1"] > 0
    assert found["steelyard_process_resident_bytes"] > 10e6
    parts = ("cpu", "loop", "wait", "requests", "bytes", "connections")
    assert found["steelyard_saturation_ratio"] == max(
        found[f"steelyard_saturation_part_ratio {part}"] for part in parts
    )


def test_the_log_has_neither_payload_nor_key(store: Path, tmp_path: Path) -> None:
    """Sent everywhere a caller can put something, with every request logged; then the whole log is searched."""
    row = {**ROW, "carrier": SENTINEL}
    secret = {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY, "Cookie": KEY}
    with gateways.running(store, tmp_path, STEELYARD_LOG__REQUESTS="all", STEELYARD_LOG__LEVEL="debug") as gateway:
        assert gateway.request("POST", "/v1/predict/tiny", {"rows": [row]}, **secret).status == 200
        for body in (
            {"rows": [{**row, "hour": SENTINEL}]},
            {"rows": [{**row, SENTINEL: 1}]},
            {SENTINEL: [row]},
            SENTINEL.encode(),
            b"\xff" + SENTINEL.encode(),
        ):
            assert gateway.request("POST", "/v1/predict/tiny", body, **secret).status == 400
            assert gateway.request("POST", "/v2/models/tiny/infer", body, **secret).status == 400
        assert gateway.request("POST", "/v1/predict/tiny/versions/" + SENTINEL, {"rows": [row]}).status == 404
        assert gateway.request("GET", f"/{SENTINEL}?key={KEY}", None, **secret).status == 404
        assert gateway.request("POST", f"/v1/predict/tiny?key={KEY}", {"rows": [row]}, **secret).status == 200
        assert gateway.terminate() == 0
        log = gateway.log.read_text()
        lines = records(gateway)
    assert SENTINEL not in log
    assert KEY not in log
    answered = [line for line in lines if line["message"] == "answered"]
    refused = [line for line in lines if line["message"] == "refused"]
    assert [(line["model"], line["status"]) for line in answered] == [("tiny", 200)] * 2
    assert {(line["reason"], line["status"]) for line in refused} == {("invalid", 400), ("not_found", 404)}
    assert len(refused) == 11


def test_a_request_is_found_in_the_log_by_its_id_and_trace(store: Path, tmp_path: Path) -> None:
    with gateways.running(store, tmp_path, STEELYARD_LOG__REQUESTS="all") as gateway:
        receipt = predict(gateway, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
        [line] = [line for line in records(gateway) if line.get("request_id") == receipt["steelyard-request-id"]]
        assert (line["trace_id"], line["model"], line["version"]) == (TRACE_ID, "tiny", 1)
        assert line["cost_picousd"] == int(receipt["steelyard-cost-picousd"])


def test_people_get_text(store: Path, tmp_path: Path) -> None:
    with gateways.running(store, tmp_path, STEELYARD_LOG__FORMAT="text") as gateway:
        predict(gateway)
        text = gateway.log.read_text()
    assert "INFO gateway.telemetry.startup: cold start phases=interpreter_ns=" in text
    assert not [line for line in text.splitlines() if line.startswith("{")]


def test_the_cold_start_is_in_the_log_the_metrics_and_the_ledger(store: Path, tmp_path: Path) -> None:
    with gateways.running(store, tmp_path, "--preload", "tiny", STEELYARD_ACCOUNTING__CONTAINER_ID="cold") as gateway:
        assert not [line for line in records(gateway) if line["message"] == "cold start"]
        predict(gateway)
        [phases] = [line["phases"] for line in records(gateway) if line["message"] == "cold start"]
        found = samples(gateway)
        assert gateway.terminate() == 0
    for name in ("imports", "settings", "store", "ready", "first_run", "first_answer"):
        assert phases[f"{name}_ns"] > 0
        assert found[f"steelyard_cold_start_seconds {name}"] == phases[f"{name}_ns"] / 1e9
    parts = ("interpreter", "imports", "settings", "store", "download", "verify", "session", "warm_up", "app", "other")
    assert sum(phases.get(f"{name}_ns", 0) for name in parts) >= phases["ready_ns"]
    assert phases["ready_ns"] <= phases["first_answer_ns"]
    boots = [p for p in asyncio.run(postings(store, "cold")) if p.account == "boot" and p.phases is not None]
    assert [boot.phases.ready_ns for boot in boots if boot.phases] == [phases["ready_ns"]]


async def postings(root: Path, container: str) -> list[Any]:
    store = LocalStore(root)
    keys = [info.key async for info in store.list(layout.LEDGER)]
    segments = [key for key in keys if f"{container}" in key and key.endswith(".jsonl.gz")]
    return [posting for key in segments for posting in segment.decode((await store.get(key)).body).postings]


def test_a_prediction_is_a_trace_when_otel_says_so(store: Path, tmp_path: Path) -> None:
    with (
        collectors.collecting() as collector,
        gateways.running(
            store, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="50"
        ) as gateway,
    ):
        receipt = predict(gateway, rows=2, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
        predict(gateway, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
        assert gateway.terminate() == 0
        spans = {span.name: span for span in collector.spans}
    server = spans["predict tiny"]
    assert server.trace_id.hex() == TRACE_ID
    assert server.parent_span_id.hex() == PARENT_ID
    found = collectors.attributes(server.attributes)
    assert found["steelyard.request_id"] == receipt["steelyard-request-id"]
    assert found["steelyard.cost_picousd"] == int(receipt["steelyard-cost-picousd"])
    assert (found["steelyard.rows"], found["http.response.status_code"]) == (2, 200)
    for name in ("decode", "run", "encode"):
        assert spans[name].parent_span_id == server.span_id
        assert server.start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= server.end_time_unix_nano
    assert len([span for span in collector.spans if span.name == "predict tiny"]) == 1
    assert collector.resource["service.name"] == "steelyard"


def test_a_collector_that_is_down_fails_no_request_and_no_exit(store: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    with gateways.running(
        store, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="10"
    ) as gateway:
        for _ in range(20):
            predict(gateway)
        assert gateway.terminate() == 0
        assert "Traceback" not in gateway.log.read_text()


def test_an_unknown_exporter_ends_the_start_with_a_sentence(store: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="OTEL_TRACES_EXPORTER is 'zipkin'"),
        gateways.running(store, tmp_path, OTEL_TRACES_EXPORTER="zipkin"),
    ):
        pass

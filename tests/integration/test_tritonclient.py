"""NVIDIA's own client, sync and asyncio, with its defaults and with every option that this gateway says it serves."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import http
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from gateway.contract.words import Datatype
from gateway.objectstore.local import LocalStore
from gateway.runtime.tensors import DTYPES
from tests.support import gateways, identities, models
from tests.support.gateways import Gateway

LABELS = ("cat", "dog", "bird", "fish")


async def _publish(root: Path) -> None:
    store = LocalStore(root)
    await models.publish_tiny(store)
    await models.publish_mlp(store)
    await models.publish_mlp(store, seed=1, promote_to="candidate")
    await models.publish_mlp(store, "idle")
    await models.publish_mlp(store, "counted")
    await identities.publish(store, "every", identities.EVERY_SIGNATURE)
    await identities.publish(store, "text", identities.TEXT_SIGNATURE)
    await identities.publish(store, "ranked", identities.signature({"x": ("FP32", (4,))}), LABELS)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(_publish(root))
    with gateways.running(
        root,
        tmp_path_factory.mktemp("gateway"),
        STEELYARD_COMPRESSION__ANSWERS_FROM_BYTES="64",
        STEELYARD_COMPRESSION__LOOP_BYTES_MAX="2000",
    ) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Any]:
    with http.InferenceServerClient(f"127.0.0.1:{gateway.port}", concurrency=4) as client:
        yield client


def sent(name: str, values: Any, datatype: str | None = None, *, binary: bool = True) -> Any:
    found = http.InferInput(name, list(values.shape), datatype or "FP32")
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def features(rows: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, 32)).astype(np.float32)


def expected(client: Any, x: Any) -> Any:
    """By the row of JSON that the protocol's text shows."""
    return client.infer("mlp", [sent("features", x, binary=False)]).as_numpy("scores")


def test_health_metadata_and_extensions(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("nosuch")
    server = client.get_server_metadata(query_params={"test_1": 1, "test_2": 2})  # OIP-6
    assert {"binary_tensor_data", "classification", "model_repository", "model_configuration", "statistics"} <= set(
        server["extensions"]
    )
    assert not {"sequence", "system_shared_memory", "cuda_shared_memory", "trace"} & set(server["extensions"])
    metadata = client.get_model_metadata("mlp")
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 32]}]
    config = client.get_model_config("mlp")
    assert config["max_batch_size"] == 128
    assert config["input"] == [{"name": "features", "data_type": "TYPE_FP32", "dims": [32]}]
    assert config["dynamic_batching"] == {}
    assert config["platform"] == metadata["platform"] == "onnxruntime_onnx"
    assert client.get_model_config("every", "1")["input"][-1]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_the_defaults_are_binary_both_ways(client: Any, rows: int) -> None:  # OIP-15, 16, 18
    x = features(rows)
    answer = client.infer("mlp", [sent("features", x)], request_id='ünïque "id"')
    described = answer.get_response()
    assert described["id"] == 'ünïque "id"'
    assert described["outputs"][0]["parameters"] == {"binary_data_size": rows * 10 * 4}
    np.testing.assert_allclose(answer.as_numpy("scores"), expected(client, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("datatype", identities.EVERY)
def test_every_datatype_goes_through_unchanged(
    client: Any, datatype: Datatype, binary_in: bool, binary_out: bool
) -> None:  # OIP-11, 16, 17
    if datatype == "FP16":  # which the client itself sends and takes as bytes only
        binary_in = binary_out = True
    inputs = []
    for other in identities.EVERY:
        values = identities.values(other)
        if other == "BYTES":
            values = np.array([[text.encode() for text in row] for row in values], np.object_)
        is_binary = binary_in if other == datatype else other == "FP16" or not binary_in  # mixed in one body
        if other in {"FP32", "FP64"} and not is_binary:
            values = values.astype(DTYPES[other])
        inputs.append(sent(other.lower(), values, other, binary=is_binary))
    name = f"{datatype.lower()}_out"
    outputs = [http.InferRequestedOutput(name, binary_data=binary_out)]
    answer = client.infer("every", inputs, outputs=outputs)
    assert [output["name"] for output in answer.get_response()["outputs"]] == [name]  # OIP-10
    got = answer.as_numpy(name)
    want = identities.values(datatype)
    if datatype == "BYTES":
        got = np.array([[v.decode() if isinstance(v, bytes) else v for v in row] for row in got], np.object_)
    assert got.tolist() == want.tolist()


def test_outputs_are_chosen_and_each_has_its_form(client: Any) -> None:  # OIP-10, 18
    inputs = [sent(d.lower(), _bytes(identities.values(d)), d) for d in identities.EVERY]
    outputs = [
        http.InferRequestedOutput("fp32_out", binary_data=False),
        http.InferRequestedOutput("int8_out", binary_data=True),
        http.InferRequestedOutput("bytes_out", binary_data=True),
    ]
    answer = client.infer("every", inputs, outputs=outputs)
    shown = answer.get_response()["outputs"]
    assert [("data" in output, "parameters" in output) for output in shown] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert answer.as_numpy("int8_out").tolist() == identities.values("INT8").tolist()
    assert answer.as_numpy("bytes_out")[1, 0].decode() == identities.values("BYTES")[1, 0]
    for bad, message in (("nope", "has no output 'nope'"), ("fp32_out", "output 'fp32_out' already exists in request")):
        with pytest.raises(InferenceServerException, match=message):
            client.infer("every", inputs, outputs=[outputs[0], http.InferRequestedOutput(bad)])


def _bytes(values: Any) -> Any:
    if values.dtype != np.object_:
        return values
    return np.array([[text.encode() for text in row] for row in values], np.object_)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("rows", [1, 400])  # inflated and deflated at once, and in threads
def test_bodies_are_compressed_both_ways(client: Any, coding: str, rows: int) -> None:  # OIP-21
    x = features(rows)
    for binary in (True, False):
        answer = client.infer(
            "mlp",
            [sent("features", x, binary=binary)],
            outputs=[http.InferRequestedOutput("scores", binary_data=binary)],
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        np.testing.assert_allclose(answer.as_numpy("scores"), expected(client, x), rtol=1e-5, atol=1e-6)


def test_classes_come_with_values_and_labels(client: Any) -> None:  # OIP-13
    x = np.array([[0.1, 0.7, 0.7, 0.2], [5, 3, 1, 4]], np.float32)
    for binary in (True, False):
        outputs = [http.InferRequestedOutput("x_out", binary_data=binary, class_count=2)]
        answer = client.infer("ranked", [sent("x", x)], outputs=outputs)
        got = [[v.decode() if isinstance(v, bytes) else v for v in row] for row in answer.as_numpy("x_out")]
        assert got == [["0.7:1:dog", "0.7:2:bird"], ["5.0:0:cat", "4.0:3:fish"]]
    unlabelled = client.infer(
        "mlp", [sent("features", features())], outputs=[http.InferRequestedOutput("scores", class_count=99)]
    )
    assert unlabelled.as_numpy("scores").shape == (1, 10)
    with pytest.raises(InferenceServerException, match="only numbers can be classified"):
        client.infer(
            "text",
            [sent("text", np.array([[b"a"]], np.object_), "BYTES")],
            outputs=[http.InferRequestedOutput("text_out", class_count=1)],
        )


def test_timeout_and_priority_are_parameters(client: Any) -> None:  # OIP-12
    x = features()
    answer = client.infer("mlp", [sent("features", x)], timeout=5_000_000, priority=1, parameters={"mine": "x", "n": 1})
    assert answer.as_numpy("scores").shape == (1, 10)
    with pytest.raises(
        InferenceServerException, match="deadline"
    ) as late:  # a microsecond, for what has to wait for a worker
        client.infer("mlp", [sent("features", features(5000))], timeout=1)
    assert late.value.status() == "503"


def test_sequences_are_refused(client: Any) -> None:  # OIP-14
    for sequence in ({"sequence_id": 7}, {"sequence_id": "seven", "sequence_start": True}):
        with pytest.raises(InferenceServerException, match="sequences are not served"):
            client.infer("mlp", [sent("features", features())], **sequence)


def test_a_raw_request_is_the_tensor_itself(client: Any) -> None:  # OIP-19
    x = features()
    body = http.InferenceServerClient.generate_request_body([sent("features", x)])
    assert body[1] > 0  # what the client makes has a head; without one the gateway takes the bytes alone
    response = client._post(
        "v2/models/mlp/infer", x.tobytes(), headers={"Inference-Header-Content-Length": "0"}, query_params=None
    )
    head = int(response.get("Inference-Header-Content-Length"))
    answer = http.InferenceServerClient.parse_response_body(response.read(), header_length=head)
    np.testing.assert_allclose(answer.as_numpy("scores"), expected(client, x), rtol=1e-5, atol=1e-6)


def test_versions_and_aliases_are_asked_for_as_versions(client: Any) -> None:  # OIP-7
    x = features()
    first, second = (client.infer("mlp", [sent("features", x)], model_version=v) for v in ("1", "2"))
    assert (first.get_response()["model_version"], second.get_response()["model_version"]) == ("1", "2")
    assert not np.allclose(first.as_numpy("scores"), second.as_numpy("scores"))
    with pytest.raises(InferenceServerException, match="has no version 9; published: 1, 2"):
        client.infer("mlp", [sent("features", x)], model_version="9")


@pytest.mark.parametrize("name", ["no such/model", "../mlp", "a%2Fb", "nul\x00", "MLP", "ü"])
def test_names_are_percent_encoded_and_end_in_a_sentence(client: Any, name: str) -> None:  # OIP-2, 7
    with pytest.raises(InferenceServerException, match=r"no model is named|no route") as refused:
        client.infer(name, [sent("features", features())])
    assert refused.value.status() == "404"


def test_the_repository_is_listed_loaded_and_unloaded(client: Any) -> None:  # OIP E8 to E10
    def states() -> dict[str, str]:
        return {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}

    assert states()["idle"] == "UNAVAILABLE"
    client.load_model("idle")
    assert states()["idle"] == "READY"
    client.unload_model("idle", unload_dependents=True)
    assert states()["idle"] == "UNAVAILABLE"
    assert client.infer("idle", [sent("features", features())]).as_numpy("scores").shape == (1, 10)
    assert states()["idle"] == "READY"
    with pytest.raises(InferenceServerException, match="parameter 'config' is not supported"):
        client.load_model("idle", config=json.dumps({"max_batch_size": 1}))
    with pytest.raises(InferenceServerException, match=r"parameter '(config|file:1/model\.onnx)' is not supported"):
        client.load_model("idle", config="{}", files={"file:1/model.onnx": b"x" * 1000})
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="no model is named 'nosuch'"):
            call("nosuch")


def test_what_is_not_served_is_refused_with_a_sentence(client: Any) -> None:  # OIP E13, E15
    for call in (client.get_system_shared_memory_status, client.get_trace_settings, client.get_log_settings):
        with pytest.raises(InferenceServerException, match="no route"):
            call()
    x = http.InferInput("features", [1, 32], "FP32")
    x.set_shared_memory("region", 128)
    with pytest.raises(InferenceServerException, match="shared memory is not served"):
        client.infer("mlp", [x])


def test_threads_of_one_client_get_their_own_answers(client: Any) -> None:
    xs = [features(seed=seed) for seed in range(40)]
    want = [expected(client, x) for x in xs]
    pending = [client.async_infer("mlp", [sent("features", x)]) for x in xs]
    for request, scores in zip(pending, want, strict=True):
        np.testing.assert_allclose(request.get_result().as_numpy("scores"), scores, rtol=1e-5, atol=1e-6)


async def test_the_asyncio_client_runs_concurrent_calls(gateway: Gateway) -> None:
    async with aio.InferenceServerClient(f"127.0.0.1:{gateway.port}") as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("mlp"))["name"] == "mlp"
        assert (await client.get_model_config("mlp"))["name"] == "mlp"
        await client.load_model("mlp")
        xs = [features(1 + seed % 3, seed) for seed in range(60)]

        async def infer(x: Any, at: int) -> Any:
            answer = await client.infer(
                "mlp",
                [sent("features", x, binary=at % 2 == 0)],
                outputs=[aio.InferRequestedOutput("scores", binary_data=at % 3 == 0)],
                request_compression_algorithm=(None, "gzip", "deflate")[at % 3],
                response_compression_algorithm=(None, "gzip")[at % 2],
            )
            return answer.as_numpy("scores")

        answers = await asyncio.gather(*(infer(x, at) for at, x in enumerate(xs)))
        for x, scores in zip(xs, answers, strict=True):
            alone = await client.infer("mlp", [sent("features", x)])
            np.testing.assert_allclose(scores, alone.as_numpy("scores"), rtol=1e-5, atol=1e-6)


def test_statistics_count_rows_runs_and_failures(client: Any) -> None:  # OIP E11, section 4
    client.load_model("counted")
    [before] = client.get_inference_statistics("counted")["model_stats"]
    assert (before["inference_count"], before["inference_stats"]["success"]) == (0, {"count": 0, "ns": 0})
    for rows in (1, 1, 3):
        client.infer("counted", [sent("features", features(rows))])
    with pytest.raises(InferenceServerException):
        client.infer("counted", [sent("wrong", features())])
    [stats] = client.get_inference_statistics("counted")["model_stats"]
    assert (stats["name"], stats["version"]) == ("counted", "1")
    assert (stats["inference_count"], stats["execution_count"]) == (5, 3)
    steps = stats["inference_stats"]
    assert (steps["success"]["count"], steps["fail"]["count"]) == (3, 1)
    assert steps["cache_hit"] == steps["cache_miss"] == {"count": 0, "ns": 0}
    for step in ("compute_input", "compute_infer", "compute_output"):
        assert 0 < steps[step]["ns"] < steps["success"]["ns"]
    assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]} == {1: 2, 3: 1}
    assert stats["last_inference"] > 1_700_000_000_000
    assert stats["memory_usage"][0]["byte_size"] > 0
    everything = client.get_inference_statistics()["model_stats"]
    assert stats in everything
    assert client.get_inference_statistics("counted", "1")["model_stats"] == [stats]
    client.unload_model("counted")
    [after] = client.get_inference_statistics("counted")["model_stats"]
    assert (after["inference_count"], after["memory_usage"]) == (5, [])
    for name, version, message in (("nosuch", "", "no model is named"), ("counted", "9", "no version 9; published: 1")):
        with pytest.raises(InferenceServerException, match=message):
            client.get_inference_statistics(name, version)

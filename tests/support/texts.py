"""Models of text: a small real WordPiece tokenizer, and a small real encoder with random weights that reads what it makes.

`publish` puts one into a store with its tokenizer.json, as a recipe would. The words are those of `WORDS` and single letters.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from gateway.contract.manifest import BatchCost, Manifest, Signature, Tensor, TextInput
from gateway.contract.registry import VersionRecord
from gateway.objectstore.protocol import ObjectStore
from tests.support import models as published
from tests.support.encoders import encoder_graph
from trainers import publish as publishing

WORDS = (
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "a",
    "mat",
    "flies",
    "rocket",
    "orbit",
    "engine",
    "wheel",
    "god",
    "mac",
    "gun",
    "ice",
)
LENGTH_MAX = 16
WIDTH = 32
LABELS = tuple(f"topic.{number}" for number in range(WIDTH))
TEXT = TextInput(
    column="text",
    file="tokenizer.json",
    length_max=LENGTH_MAX,
    ids="input_ids",
    mask="attention_mask",
    description="any text",
)
NAMES = {"ids": "input_ids", "attention_mask": "attention_mask"}
"""A reference library's names of what it makes, and the tensors they are."""

SIGNATURE = Signature(
    inputs=tuple(Tensor(name, "INT64", ("batch", "tokens")) for name in ("input_ids", "attention_mask")),
    outputs=(Tensor("embedding", "FP32", ("batch", WIDTH)),),
)


def wordpiece(**changes: Any) -> bytes:
    """A tokenizer.json as BERT's: [CLS] and [SEP] around lower-case word pieces. `changes` replace its top keys."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *dict.fromkeys([*WORDS, *letters]),
        *(f"##{letter}" for letter in letters),
    ]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.enable_padding(length=LENGTH_MAX, pad_id=0, pad_token="[PAD]")  # as MiniLM's own file has it
    made.enable_truncation(LENGTH_MAX)
    return json.dumps(json.loads(made.to_str()) | changes).encode()


def reference(tokenizer: bytes, *, length_max: int = LENGTH_MAX) -> Tokenizer:
    """As the library's own users have it: padded to the longest of a batch."""
    made = Tokenizer.from_buffer(tokenizer)
    made.no_padding()
    made.enable_truncation(length_max)
    made.enable_padding(pad_id=0)
    return made


def encoder(seed: int = 0) -> bytes:
    return encoder_graph(layers=2, width=WIDTH, heads=4, inner=64, words=128, seed=seed)


def manifest(
    name: str = "topics",
    *,
    graph: bytes | None = None,
    tokenizer: bytes | None = None,
    text: TextInput = TEXT,
    signature: Signature = SIGNATURE,
    labels: tuple[str, ...] = LABELS,
    **variant: Any,
) -> tuple[Manifest, dict[str, bytes]]:
    """`variant` are changes to the only variant."""
    made, contents = published.manifest_of(name, signature, {"fp32": encoder() if graph is None else graph})
    body = wordpiece() if tokenizer is None else tokenizer
    file = publishing.describe(text.file, body, "tokenizer")
    changes = {"max_batch": 8, "batch_cost": BatchCost(100_000, 50_000, 1_000_000), **variant}
    variants = (msgspec.structs.replace(made.variants[0], **changes),)
    made = msgspec.structs.replace(made, files=(*made.files, file), text=text, labels=labels, variants=variants)
    return made, {**contents, file.name: body}


async def publish(
    store: ObjectStore, name: str = "topics", *, promote_to: str = "champion", **changes: Any
) -> VersionRecord:
    return await published.publish_files(store, *manifest(name, **changes), promote_to=promote_to)


def with_number() -> tuple[Signature, bytes]:
    """A signature and a graph of a text beside a column `age`: each embedding plus the age."""
    model = onnx.load_from_string(encoder())
    model.graph.output[0].name = "aged"
    model.graph.input.append(onnx.helper.make_tensor_value_info("numbers", onnx.TensorProto.FLOAT, ["batch", 1]))
    model.graph.node.append(onnx.helper.make_node("Add", ["embedding", "numbers"], ["aged"]))
    numbers = Tensor("numbers", "FP32", ("batch", 1), (published.Column("age", "number", nullable=True),))
    made = Signature((numbers, *SIGNATURE.inputs), (Tensor("aged", "FP32", ("batch", WIDTH)),))
    return made, bytes(model.SerializeToString())


def tensors_of(tokenizer: Tokenizer, texts: list[str], names: Mapping[str, str]) -> dict[str, Any]:
    """What the library makes of these texts together: `names` maps its fields to inputs."""
    found = tokenizer.encode_batch(texts)
    return {name: np.array([getattr(one, field) for one in found], np.int64) for field, name in names.items()}

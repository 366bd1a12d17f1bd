"""Text to tensors: as the reference library has it, in parts of like length, and refused with a sentence."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from gateway.contract.manifest import Column, Manifest, Tensor, TextInput
from gateway.dataplane import Decoded, Sent
from gateway.errors import InvalidInput, UnsupportedModel
from gateway.http import classification
from gateway.http.kservev1 import V1
from gateway.http.rows import Rows
from gateway.http.sagemaker import Invocations
from gateway.registry import releasing
from gateway.repository.residents import Resident
from gateway.runtime import texts
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.parts import Ragged
from gateway.runtime.spent import Spent
from tests.support import texts as made
from tests.support.batching import FAR_NS, working
from tests.support.memorystore import MemoryStore
from tests.support.repositories import followed, real

NAMES = {"ids": "input_ids", "attention_mask": "attention_mask"}
WORDPIECE = made.wordpiece()
REFERENCE = made.reference(WORDPIECE)
unicode = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)
wordy = st.lists(st.sampled_from([*made.WORDS, "zzz", "Über", "日本", "\0", "!"]), max_size=30).map(" ".join)


def reader(tokenizer: bytes = WORDPIECE, **changes: Any) -> texts.Texts:
    manifest, _ = made.manifest(tokenizer=tokenizer, **changes)
    return _built(manifest, tokenizer)


def _built(manifest: Manifest, tokenizer: bytes) -> texts.Texts:
    class File:
        def read_bytes(self) -> bytes:
            return tokenizer

    path: Any = File()
    return texts.build(manifest, path)


def resident(texts_reader: texts.Texts | None = None, **changes: Any) -> Resident[Any]:
    manifest, contents = made.manifest(**changes)
    model = SimpleNamespace(memo={}, texts=texts_reader or _built(manifest, contents["tokenizer.json"]))
    return Resident(manifest.model, 1, manifest, manifest.variants[0], model, 0)  # type: ignore[arg-type]


READER = reader()
RESIDENT = resident(READER)


def decode(body: object, of: Resident[Any] = RESIDENT, door: Any = None, **headers: str) -> Decoded:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    decoded: Decoded = (door or Rows()).decode(Sent(sent, named), of)
    return decoded


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(unicode, wordy), min_size=1, max_size=6))
def test_tensors_are_those_of_the_reference_library(sent: list[str]) -> None:
    found = READER.read(sent)
    assert found is not None
    expected = made.tensors_of(REFERENCE, sent, NAMES)
    assert {name: array.tolist() for name, array in found[0].items()} == {
        name: array.tolist() for name, array in expected.items()
    }
    assert found[1] == Ragged(("input_ids", "attention_mask"), tuple(expected["attention_mask"].sum(axis=1)))


@settings(max_examples=30, deadline=None)
@given(st.lists(unicode, min_size=1, max_size=4))
def test_a_row_decodes_to_the_same_through_every_door(sent: list[str]) -> None:
    rows = [{"text": text} for text in sent]
    bodies: list[tuple[Any, object]] = [
        (Rows(), {"rows": rows}),
        (V1(), {"instances": rows}),
        (V1(), {"instances": sent}),
        (Invocations(), {"rows": rows}),
    ]
    seen = [decode(body, door=door) for door, body in bodies]
    assert {one.rows for one in seen} == {len(sent)}
    assert len({json.dumps({n: a.tolist() for n, a in one.inputs.items()}) for one in seen}) == 1


def test_csv_cells_are_texts_and_may_be_empty() -> None:
    decoded = decode(b'the cat\r\n""\r\n"a ""dog"", sat"\r\n', door=Invocations(), content_type="text/csv")
    expected = made.tensors_of(REFERENCE, ["the cat", "", 'a "dog", sat'], NAMES)
    assert decoded.inputs["input_ids"].tolist() == expected["input_ids"].tolist()


def test_a_text_beside_other_columns() -> None:
    signature, graph = made.with_number()
    of = resident(signature=signature, graph=graph)
    decoded = decode({"rows": [{"age": None, "text": "a cat"}, {"text": "", "age": 3}]}, of)
    assert list(decoded.inputs) == ["numbers", "input_ids", "attention_mask"]
    assert decoded.inputs["numbers"][1].tolist() == [3]
    with pytest.raises(InvalidInput, match=r"missing required field `age` - at `\$\.rows\[0\]`"):
        decode({"rows": [{"text": "a cat"}]}, of)


LONG = "x" * (texts.CHARACTERS_MAX + 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, r"missing required field `text` - at `\$\.rows\[0\]`"),
        ({"text": 7}, r"Expected `str`, got `int` - at `\$\.rows\[0\]\.text`"),
        ({"text": None}, r"Expected `str`, got `null` - at `\$\.rows\[0\]\.text`"),
        ({"text": ["a"]}, r"Expected `str`, got `array` - at `\$\.rows\[0\]\.text`"),
        ({"text": "a", "txet": "b"}, r"unknown field `txet`"),
        ({"text": "a", "input_ids": [1]}, r"unknown field `input_ids`"),
        ({"text": LONG}, r"Expected `str` of length <= 100000 - at `\$\.rows\[0\]\.text`"),
        ({"text": "x" * 10_000_000}, r"Expected `str` of length <= 100000 - at `\$\.rows\[0\]\.text`"),
    ],
)
def test_what_is_no_text_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        decode({"rows": [row]})


@pytest.mark.parametrize("body", [rb'{"rows":[{"text":"\ud800"}]}', b'{"rows":[{"text":"\xed\xa0\x80"}]}'])
def test_half_a_surrogate_pair_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body)
    with pytest.raises(InvalidInput, match="row 1, column 'text': half of a surrogate pair is no text"):
        READER.read(["fine", "\ud800"])


def test_empty_and_nul_are_texts() -> None:
    decoded = decode({"rows": [{"text": ""}, {"text": "\0"}, {"text": "c\0at"}]})
    assert (
        decoded.inputs["input_ids"].tolist()
        == made.tensors_of(REFERENCE, ["", "\0", "c\0at"], NAMES)["input_ids"].tolist()
    )


def test_long_texts_are_left_for_a_thread_and_read_the_same() -> None:
    sent = ["the cat " * 200, "a dog"] * 2
    decoded = decode({"rows": [{"text": text} for text in sent]})
    assert (decoded.rows, decoded.inputs) == (4, {})
    assert decoded.rest is not None
    found = decoded.rest(lambda: False)
    assert found is not None
    assert found[0]["input_ids"].tolist() == made.tensors_of(REFERENCE, sent, NAMES)["input_ids"].tolist()
    assert decoded.rest(lambda: True) is None


def test_many_short_texts_are_left_for_a_thread_and_too_many_refused() -> None:
    assert decode({"rows": [{"text": ""}] * 20}).rest is None
    assert decode({"rows": [{"text": ""}] * 100}).rest is not None
    with pytest.raises(InvalidInput, match="the request has 4097 texts; at most 4096 are taken at once"):
        decode({"rows": [{"text": ""}] * 4097})


def test_texts_that_make_too_large_a_tensor_are_refused() -> None:
    long = reader(text=msgspec.structs.replace(made.TEXT, length_max=100_000))
    with pytest.raises(InvalidInput, match="300 texts as long as row 1, of 60002 tokens, are too many at once"):
        long.read(["a", "a " * 60_000, *["a"] * 298])


def test_what_makes_no_token_is_refused() -> None:
    bare = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InvalidInput, match="row 1, column 'text': the model's tokenizer finds no token in this text"):
        reader(bare.to_str().encode()).read(["a", " "])


def test_what_the_tokenizer_refuses_is_not_quoted() -> None:
    strict = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="[UNK]"))
    strict.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InvalidInput, match=r"row 0, column 'text': the model's tokenizer refuses this text$"):
        reader(strict.to_str().encode()).read(["secret"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value"),
        (b"{}", "model"),
        (b"[]", "indices|list"),
        (b"\xff", "decode|codec"),
        (WORDPIECE[:-9], "'tokenizer.json' is no tokenizer of use: "),
        (made.wordpiece(model={"type": "WordPiece"}), "no tokenizer of use"),
        (made.wordpiece(padding=json.loads(WORDPIECE)["padding"] | {"direction": "Left"}), "it pads on the left"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        reader(body)


def test_a_length_below_the_special_tokens_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no tokenizer of use"):
        reader(text=msgspec.structs.replace(made.TEXT, length_max=1))


def test_a_tokenizer_of_an_absurd_size_is_refused_before_it_is_fetched() -> None:
    manifest, _ = made.manifest()
    files = [
        msgspec.structs.replace(f, size=texts.TOKENIZER_BYTES_MAX + 1) if f.role == "tokenizer" else f
        for f in manifest.files
    ]
    with pytest.raises(UnsupportedModel, match="33,554,433 bytes; a tokenizer has at most 33,554,432"):
        texts.require(msgspec.structs.replace(manifest, files=tuple(files)))


def test_without_the_extra_a_model_of_text_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UnsupportedModel, match=r"'topics' reads text: pip install 'steelyard\[text\]'"):
        texts.require(made.manifest()[0])


@pytest.mark.parametrize("mask", ["attention_mask", ""])
def test_type_ids_and_int32(mask: str) -> None:
    signature = msgspec.structs.replace(
        made.SIGNATURE,
        inputs=tuple(
            msgspec.structs.replace(made.SIGNATURE.inputs[0], name=name, datatype="INT32")
            for name in filter(None, ("input_ids", mask, "token_type_ids"))
        ),
    )
    text = msgspec.structs.replace(made.TEXT, mask=mask, type_ids="token_type_ids")
    found = reader(signature=signature, text=text).read(["the cat", "a"])
    assert found is not None
    assert {name: array.dtype for name, array in found[0].items()} == dict.fromkeys(text.tensors, np.dtype(np.int32))
    assert found[0]["token_type_ids"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]


@given(
    st.lists(st.integers(1, 128), min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from([0, 0.5, 3, 20, float("inf")]),
)
def test_rows_run_together_when_their_padding_is_worth_it(lengths: list[int], rows_max: int, waste_max: float) -> None:
    parts = [part.tolist() for part in Ragged(("x",), tuple(lengths)).parts(rows_max, waste_max)]
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts:
        assert 1 <= len(part) <= rows_max
        assert lengths[part[0]] == max(lengths[row] for row in part)
        assert lengths[part[0]] - min(lengths[row] for row in part) <= waste_max
    for part, after in pairwise(parts):
        assert len(part) == rows_max or lengths[part[0]] - lengths[after[0]] > waste_max, (
            "one run would have been enough"
        )


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Any]:
    with ThreadPoolExecutor(1) as builder, working(2) as workers:

        async def load_one(**changes: Any) -> LoadedModel:
            manifest, contents = made.manifest(**changes)
            for name, content in contents.items():
                (tmp_path / name).write_bytes(content)
            loader = Loader(workers, builder, RuntimeOptions(), cpu_flags=frozenset())
            [variant] = manifest.variants
            model, _ = await loader.load(manifest, variant, tmp_path / variant.file, tmp_path / "tokenizer.json")
            return model

        yield load_one


async def answer(model: LoadedModel, sent: list[str]) -> tuple[Any, int]:
    assert model.texts is not None
    found = model.texts.read(sent)
    assert found is not None
    share = await model.run(found[0], len(sent), deadline_ns=FAR_NS, spent=Spent(), ragged=found[1])
    return share.outputs["embedding"], share.batch_rows


SENT = [
    "the cat sat on a mat",
    "",
    "rocket",
    "a dog flies on",
    "god",
    "zzzz the mac " * 9,
    "orbit engine",
    "the",
    "ice ice",
    "gun",
]


@pytest.mark.parametrize(("is_invariant", "distance"), [(True, 1e-5), (False, 0.0)])
async def test_an_answer_is_the_same_alone_and_among_others(load: Any, is_invariant: bool, distance: float) -> None:
    """In requests beyond the largest batch too; a variant that is not batch-invariant runs each row alone, to the last bit."""
    model = await load(batch_invariant=is_invariant)
    alone = np.concatenate([(await answer(model, [text]))[0] for text in SENT])
    together, batch_rows = await answer(model, SENT)
    assert np.abs(alone - together).max() <= distance
    assert batch_rows in (range(2, 9) if is_invariant else [1])
    assert np.ptp(alone, axis=0).max() > 0.01, "all texts are one to this encoder"


async def test_without_a_mask_nothing_is_padded(load: Any) -> None:
    """A graph that sums ids: padding with anything but nothing would count."""
    import onnx

    nodes = [
        onnx.helper.make_node("Add", ["input_ids", "one"], ["more"]),
        onnx.helper.make_node("ReduceSum", ["more", "axis"], ["sum"], keepdims=1),
        onnx.helper.make_node("Cast", ["sum"], ["embedding"], to=onnx.TensorProto.FLOAT),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "sums",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "tokens"])],
        [onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 1])],
        [onnx.numpy_helper.from_array(np.array([1]), name) for name in ("one", "axis")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    output = msgspec.structs.replace(made.SIGNATURE.outputs[0], shape=("batch", 1))
    loaded = await load(
        graph=model.SerializeToString(),
        signature=msgspec.structs.replace(made.SIGNATURE, inputs=made.SIGNATURE.inputs[:1], outputs=(output,)),
        text=msgspec.structs.replace(made.TEXT, mask=""),
    )
    expected = [sum(number + 1 for number in one.ids) for one in map(made.reference(WORDPIECE).encode, SENT)]
    assert (await answer(loaded, SENT))[0].ravel().tolist() == expected


async def test_the_tokenizer_weighs_and_its_build_is_billed(load: Any) -> None:
    model = await load()
    assert model.texts.resident_bytes == 20 * len(WORDPIECE)
    assert model.resident_bytes == len(made.encoder()) + 20 * len(WORDPIECE)
    assert model.manifest.tokenizer_bytes_max == 60 * len(WORDPIECE)


ALONE = """
import os, pathlib, sys, time
import tests.support.texts as made
from gateway.runtime import texts
manifest, contents = made.manifest()
path = pathlib.Path(sys.argv[1])
path.write_bytes(contents["tokenizer.json"])
tasks = len(os.listdir("/proc/self/task"))
reader = texts.build(manifest, path)
began = time.process_time(), time.thread_time()
reader.read(["the cat sat " * 5000] * 8)
spent = time.process_time() - began[0], time.thread_time() - began[1]
assert len(os.listdir("/proc/self/task")) == tasks, "threads"
assert spent[1] > 0.9 * spent[0] > 0.01, spent
assert not [name for name in sys.modules if name.startswith(("huggingface", "hf_xet", "httpx2"))], "hub"
"""


async def test_the_library_starts_no_threads_and_no_hub(tmp_path: Path) -> None:
    """In a process of its own: what a gateway imports for texts, and on whose thread it reads them."""
    arguments = [sys.executable, "-c", ALONE, str(tmp_path / "tokenizer.json")]
    process = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.PIPE)
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()


SHORT = """
import pathlib, sys
import tests.support.texts as made
from gateway.runtime import memory, texts
manifest, contents = made.manifest()
path = pathlib.Path(sys.argv[1])
path.write_bytes(contents["tokenizer.json"])
reader = texts.build(manifest, path)
with memory.build_limit(1 << 20):
    try:
        reader.read(["x!" * 50_000])
    except MemoryError:
        print("MemoryError")
reader.read(["x!" * 50_000])
"""


async def test_short_memory_is_an_error_that_callers_are_told(tmp_path: Path) -> None:
    """Rust ends the process where it gets none, and while a model is being built there is little for everybody."""
    arguments = [sys.executable, "-c", SHORT, str(tmp_path / "tokenizer.json")]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    stdout, _ = await process.communicate()
    assert (process.returncode, stdout) == (0, b"MemoryError\n")


def test_text_input_is_refused_where_it_contradicts() -> None:
    manifest, _ = made.manifest()

    def change(**changes: Any) -> None:
        msgspec.structs.replace(manifest, text=msgspec.structs.replace(made.TEXT, **changes))

    change()
    for changes, message in (
        ({"file": "other.json"}, "'other.json', which is not among the files of role 'tokenizer'"),
        ({"file": "fp32.onnx"}, "not among the files of role"),
        ({"ids": "ids"}, "'ids', which is not among the inputs"),
        ({"mask": "input_ids"}, "'input_ids' appears twice"),
        ({"mask": ""}, "'attention_mask' has shape .* only the rows may vary"),
        ({"type_ids": "types"}, "'types', which is not among the inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            change(**changes)
    with pytest.raises(msgspec.ValidationError, match="length_max"):
        msgspec.convert(msgspec.to_builtins(made.TEXT) | {"length_max": 0}, TextInput)


@pytest.mark.parametrize(
    ("datatype", "shape", "message"),
    [
        ("FP32", ("batch", "tokens"), "is FP32"),
        ("INT64", ("batch", 16), "tokens are INT64 or INT32"),
        ("INT64", ("batch", "other"), "differ in shape"),
        ("INT64", ("batch", "tokens", 2), "tokens are INT64 or INT32"),
    ],
)
def test_a_signature_that_takes_no_tokens_is_refused(datatype: Any, shape: Any, message: str) -> None:
    first = msgspec.structs.replace(made.SIGNATURE.inputs[0], datatype=datatype, shape=shape)
    signature = msgspec.structs.replace(made.SIGNATURE, inputs=(first, made.SIGNATURE.inputs[1]))
    with pytest.raises(ValueError, match=message):
        made.manifest(signature=signature)


def test_a_column_named_as_the_text_and_an_output_for_each_token_are_refused() -> None:
    signature, _ = made.with_number()
    with pytest.raises(ValueError, match="'age' appears twice"):
        made.manifest(signature=signature, text=msgspec.structs.replace(made.TEXT, column="age"))
    hidden = msgspec.structs.replace(made.SIGNATURE.outputs[0], shape=("batch", "tokens"))
    with pytest.raises(ValueError, match=r"'embedding' has shape .* only the rows may vary"):
        made.manifest(signature=msgspec.structs.replace(made.SIGNATURE, outputs=(hidden,)))


async def test_a_shadow_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await made.publish(store)
    await made.publish(store, promote_to="second", graph=made.encoder(1))
    await made.publish(store, promote_to="third", tokenizer=made.wordpiece(truncation=None))
    decide: dict[str, Any] = {"model": "topics", "alias": "champion", "author": releasing.Author("tests", "", 1)}
    async with real(store, tmp_path) as repository:
        await repository.ready("topics")
        await releasing.shadow(store, version=2, sample_bp=10_000, **decide)
        await followed(repository, "topics")
        [state] = repository.servings()
        assert (state.shadow_version, state.problem) == (2, "")
        await releasing.shadow(store, version=3, sample_bp=10_000, **decide)
        await followed(repository, "topics")
        [state] = repository.servings()
        assert state.shadow_version is None
        assert (
            "version 3 does not take part in alias 'champion': it reads text by another tokenizer than version 1"
            in state.problem
        )
        assert {resident.version for resident, _ in repository.residents()} == {1}


@pytest.mark.parametrize("names", [("embedding",), ("score",)])
def test_labels_are_named_where_they_are_one_for_each_element(names: tuple[str, ...]) -> None:
    outputs = tuple(Tensor(name, "FP32", ("batch", 2)) for name in names)
    manifest, _ = made.manifest(
        signature=msgspec.structs.replace(made.SIGNATURE, outputs=outputs), labels=("ham", "spam")
    )
    tensor = classification.labelled(manifest)
    if names == ("score",):
        assert tensor is None, "its own name is taken"
        return
    assert tensor is not None
    values = {"embedding": np.array([[0.25, 0.75], [0.5, 0.5], [np.nan, 0.1]], np.float32)}
    found = classification.winners(tensor, values, manifest.labels)
    assert [(one["label"], float(one["score"])) for one in found[:2]] == [("spam", 0.75), ("ham", 0.5)]
    assert found[2]["label"] is None


def test_other_labels_name_nothing() -> None:
    assert classification.labelled(made.manifest(labels=())[0]) is None
    assert classification.labelled(made.manifest(labels=("a", "b"))[0]) is None
    columns = tuple(Column(name, "number") for name in ("a", "b"))
    named = msgspec.structs.replace(made.SIGNATURE, outputs=(Tensor("scores", "FP32", ("batch", 2), columns),))
    assert classification.labelled(made.manifest(labels=("a", "b"), signature=named)[0]) is None

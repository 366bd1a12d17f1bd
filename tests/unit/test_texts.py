"""Text to tensors: as the reference library has it, in parts of like length, and refused with a sentence."""

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from gateway.calls import Decoded, Sent
from gateway.contract.manifest import Manifest
from gateway.errors import InvalidInput, UnsupportedModel
from gateway.http.kservev1 import V1
from gateway.http.rows import Rows
from gateway.http.sagemaker import Invocations
from gateway.repository.residents import Resident
from gateway.runtime import texts
from gateway.runtime.parts import Ragged
from tests.support import texts as made

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
    expected = made.tensors_of(REFERENCE, sent, made.NAMES)
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
    expected = made.tensors_of(REFERENCE, ["the cat", "", 'a "dog", sat'], made.NAMES)
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
        == made.tensors_of(REFERENCE, ["", "\0", "c\0at"], made.NAMES)["input_ids"].tolist()
    )


def test_long_texts_are_left_for_a_thread_and_read_the_same() -> None:
    sent = ["the cat " * 200, "a dog"] * 2
    decoded = decode({"rows": [{"text": text} for text in sent]})
    assert (decoded.rows, decoded.inputs) == (4, {})
    assert decoded.rest is not None
    found = decoded.rest(lambda: False)
    assert found is not None
    assert found[0]["input_ids"].tolist() == made.tensors_of(REFERENCE, sent, made.NAMES)["input_ids"].tolist()
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

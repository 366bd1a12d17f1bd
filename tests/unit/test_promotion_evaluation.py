"""Rows that travel with an artifact: the same bytes for the same rows, nothing but data, and keys that say who has seen them."""

import io
import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.manifest import Examples, Signature, Tensor
from tests.support import promotions
from tests.support.tinyjob import tiny_data
from trainers.errors import DataError
from trainers.job import Data, Split
from trainers.promotion import evaluation

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


def of_strings(values: list[str]) -> Data:
    split = Split({"name": np.array(values, object).reshape(-1, 1)}, np.arange(len(values), dtype=np.float32))
    signature = Signature((Tensor("name", "BYTES", ("batch", 1)),), (Tensor("answer", "FP32", ("batch", 1)),))
    return Data(split, split, split, (), Examples((), ()), signature)


def keys(split: Split, signature: Signature, mask: str = "") -> list[bytes]:
    return list(evaluation.keys(split, signature, mask))


@given(st.lists(TEXT, min_size=1, max_size=8))
def test_any_strings_come_back_as_they_were(values: list[str]):
    data = of_strings(values)
    back = evaluation.unpack(evaluation.pack(evaluation.freeze(data, 100)))
    assert back.split.inputs["name"].dtype == object
    assert back.split.inputs["name"].ravel().tolist() == values
    assert keys(back.split, data.signature) == keys(data.test, data.signature)


def test_rows_of_strings_and_numbers_keep_bytes_slices_and_training_facts():
    data = tiny_data()
    data = msgspec.structs.replace(data, slices={"jfk": data.test.inputs["categories"][:, 1] == "JFK"})
    first, again = (evaluation.pack(evaluation.freeze(data, 200)) for _ in range(2))
    assert first == again
    back = evaluation.unpack(first)
    assert (back.split.rows, back.train_rows, len(back.train_targets)) == (200, 2400, 2400)
    chosen = data.test.spread(200)
    np.testing.assert_array_equal(back.split.inputs["numbers"], data.test.inputs["numbers"][chosen])
    np.testing.assert_array_equal(back.slices["jfk"], data.slices["jfk"][chosen])


def test_large_rows_are_fewer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "BYTES_MAX", 10 * 3 * 4)
    assert evaluation.freeze(promotions.made(), 5_000).split.rows == 10
    monkeypatch.setattr(evaluation, "BYTES_MAX", 1)
    assert evaluation.freeze(promotions.made(), 5_000).split.rows == 1


def test_what_is_no_data_is_refused():
    file = io.BytesIO()
    np.savez(file, targets=np.array([{"a": 1}], object), allow_pickle=True)
    good = evaluation.pack(evaluation.freeze(promotions.made(), 50))
    for body in (file.getvalue(), pickle.dumps({"targets": 1}), b"", good[:-40], b"PK\x03\x04" + bytes(30)):
        with pytest.raises(DataError, match="cannot be read"):
            evaluation.unpack(body)


def test_ragged_rows_are_refused():
    frozen = evaluation.freeze(promotions.made(), 50)
    short = Split(frozen.split.inputs, frozen.split.targets[:-1])
    with pytest.raises(DataError, match="ragged"):
        evaluation.unpack(evaluation.pack(msgspec.structs.replace(frozen, split=short)))


def test_padding_is_no_part_of_a_row():
    shapes = (Tensor("ids", "INT64", ("batch", "tokens")), Tensor("mask", "INT64", ("batch", "tokens")))
    signature = Signature(shapes, (Tensor("answer", "FP32", ("batch", 1)),))

    def padded(length: int) -> Split:
        ids, mask = np.zeros((2, length), np.int64), np.zeros((2, length), np.int64)
        ids[0, :2], mask[0, :2] = (7, 8), 1
        ids[1, :3], mask[1, :3] = (7, 8, 0), 1  # the third token is 0, which is not padding
        return Split({"ids": ids, "mask": mask}, np.zeros(2))

    short, long = keys(padded(3), signature, "mask"), keys(padded(9), signature, "mask")
    assert short == long
    assert short[0] != short[1]


def test_zero_and_missing_have_one_key_each_and_targets_none():
    a = np.array([[0.0, np.nan, 1.0]], np.float32)
    b = np.array([[-0.0, -np.nan, 1.0]], np.float32)
    assert a.tobytes() != b.tobytes()
    one, other = (keys(Split({"features": x}, np.array([t])), promotions.SIGNATURE) for x, t in ((a, 0), (b, 1)))
    assert one == other


def test_neighbouring_strings_do_not_run_into_each_other():
    signature = Signature((Tensor("name", "BYTES", ("batch", 2)),), (Tensor("answer", "FP32", ("batch", 1)),))
    rows = np.array([["ab", "c"], ["a", "bc"], ["ab", "c"]], object)
    first, second, third = keys(Split({"name": rows}, np.zeros(3)), signature)
    assert first == third != second

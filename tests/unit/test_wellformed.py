"""What a recipe loads is held against its own signature, and what is wrong is named."""

import msgspec
import numpy as np
import pytest

from tests.support.tinyjob import tiny_data
from trainers import wellformed
from trainers.errors import DataError
from trainers.job import Data


def changed(split: str, **inputs: np.ndarray) -> Data:
    data = tiny_data()
    old = getattr(data, split)
    new = msgspec.structs.replace(old, inputs={**old.inputs, **inputs})
    return msgspec.structs.replace(data, **{split: new})


def test_well_formed_data_passes_with_gaps_where_the_signature_allows_them():
    data = tiny_data()
    assert np.isnan(data.train.inputs["numbers"]).any()
    wellformed.require(data)


def test_another_type_is_refused_with_the_one_to_use():
    numbers = tiny_data().validation.inputs["numbers"]
    with pytest.raises(DataError, match=r"'numbers' of the validation split is float64; .* FP32: float32, as `.astype"):
        wellformed.require(changed("validation", numbers=numbers.astype(np.float64)))


def test_lists_of_different_lengths_are_refused():
    ragged = np.empty(2400, object)
    ragged[:] = [[0.0] * (row % 3) for row in range(2400)]
    with pytest.raises(DataError, match="'numbers' of the train split is object; the signature says FP32"):
        wellformed.require(changed("train", numbers=ragged))


def test_another_width_is_refused():
    with pytest.raises(DataError, match=r"'numbers' of the test split has shape \[800, 2\]; .* \['batch', 3\]"):
        wellformed.require(changed("test", numbers=tiny_data().test.inputs["numbers"][:, :2]))


def test_a_missing_number_is_refused_where_the_column_has_none():
    numbers = tiny_data().train.inputs["numbers"].copy()
    numbers[:7, 0] = np.nan
    with pytest.raises(DataError, match=r"column '\w+' is NaN in 7 of 2,400 rows; fill them, or say `nullable=True`"):
        wellformed.require(changed("train", numbers=numbers))


def test_an_input_of_another_name_is_refused_with_both_names():
    data = tiny_data()
    renamed = msgspec.structs.replace(data.train, inputs={"numbers": data.train.inputs["numbers"]})
    with pytest.raises(DataError, match=r"has inputs \['numbers'\]; the signature has \['categories', 'numbers'\]"):
        wellformed.require(msgspec.structs.replace(data, train=renamed))

"""The `appliances` recipe on its real data."""

import numpy as np
import pytest

from trainers.errors import DataError
from trainers.job import Data
from trainers.recipes import appliances


@pytest.fixture(scope="module")
def data() -> Data:
    return appliances.load()


def series(data: Data, split: str) -> list[bytes]:
    samples = getattr(data, split).inputs["samples"]
    return [row[~np.isnan(row)].tobytes() for row in samples]


def test_the_datas_own_test_is_kept_and_nothing_of_it_is_trained_on(data):
    assert data.test.rows == 537
    assert data.train.rows + data.validation.rows == 532
    trained, stopped, tested = (set(series(data, split)) for split in ("train", "validation", "test"))
    assert not trained & tested
    assert not stopped & tested
    assert not trained & stopped


def test_every_kind_of_appliance_is_in_every_split(data):
    for split in (data.train, data.validation, data.test):
        assert set(split.targets.tolist()) == set(range(len(appliances.LABELS)))


def test_a_series_ends_in_nan_and_has_none_before(data):
    missing = np.isnan(data.test.inputs["samples"])
    assert (np.diff(missing.astype(int), axis=1) >= 0).all()
    assert (~missing).sum(axis=1).min() == 134


def test_examples_are_of_one_length_as_the_rows_of_a_request_have_to_be(data):
    lengths = {len(row["samples"]) for row in data.examples.rows}
    assert lengths == {200}
    assert set(data.examples.outcomes) <= set(appliances.LABELS)


def test_an_example_is_its_test_row(data):
    rows = {row[:200].tobytes() for row in data.test.inputs["samples"]}
    assert all(np.array(row["samples"], np.float32).tobytes() in rows for row in data.examples.rows)


def test_sources_name_the_bytes_and_the_rows(data):
    assert {source.name: source.rows for source in data.sources} == {
        "sktime/PLAID_TRAIN.ts": 537,
        "sktime/PLAID_TEST.ts": 537,
    }


def test_the_spectrum_of_the_baseline_takes_the_shortest_series(data):
    shortest = np.full((1, 1344), np.nan, np.float32)
    shortest[0, :2] = 1.0
    assert np.isfinite(appliances.spectra(shortest)).all()


def test_a_series_file_is_read_after_its_header():
    values, kinds = appliances.parsed("#text\n@univariate true\n@data\n1.5,2:3\n0:10\n")
    assert [row.tolist() for row in values] == [[1.5, 2.0], [0.0]]
    assert kinds.tolist() == [3, 10]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@data\n1,x:3\n", "line 2 of the series cannot be read"),
        ("@data\n1,2\n", "line 2 of the series cannot be read"),
        ("@data\n1,2:11\n", "has kind 11"),
        ("@data\n1,nan:1\n", "a value that is not finite"),
        ("1,2:3\n", "no rows after '@data'"),
    ],
)
def test_a_broken_series_file_is_refused_by_its_line(text, says):
    with pytest.raises(DataError, match=says):
        appliances.parsed(text)

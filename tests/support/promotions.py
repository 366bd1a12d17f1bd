"""Versions that differ in one number: how far a logistic model is off the weights that made the labels. Real graphs, real stores.

Judged by the Brier score alone and without budgets, a decision takes a tenth of a second; a test that is about either turns it on.
"""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import torch
from onnx import helper

from gateway.contract.manifest import DataSource, Examples, Manifest, Role, Signature, Tensor
from gateway.objectstore.protocol import ObjectStore
from tests.support.models import NOW_NS, Array, graph_of, manifest_of
from trainers import metrics, objectives, publish
from trainers.job import Baseline, Data, Fit, Split, Target, TrainJob
from trainers.promotion import decision, evaluation
from trainers.promotion.decision import Candidate, Decided
from trainers.rules import Rules

MODEL = "scales"
TRUTH = np.array([1.5, -1.0, 0.5], np.float32)
SIGNATURE = Signature((Tensor("features", "FP32", ("batch", 3)),), (Tensor("answer", "FP32", ("batch", 1)),))
QUICK = Rules(
    latency_p50_ratio_max=None,
    latency_p99_ratio_max=None,
    load_ratio_max=None,
    resident_ratio_max=None,
    cost_ratio_max=None,
)
ONLY_BRIER = msgspec.structs.replace(objectives.binary(), metrics=(metrics.BRIER,))


def split(rows: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    targets = (rng.random(rows) < 1 / (1 + np.exp(-features @ TRUTH))).astype(np.float32)
    return Split({"features": features}, targets)


def made(seed: int = 0, *, train: Split | None = None, test: Split | None = None, last: str = "2026-01-31") -> Data:
    test = test or split(600, 100 + seed)
    source = DataSource("drawn", hashlib.sha256(str(seed).encode()).hexdigest(), 1800, "2026-01-01", last)
    return Data(
        train=train or split(800, 200 + seed),
        validation=split(300, 300 + seed),
        test=test,
        sources=(source,),
        examples=Examples((), ()),
        signature=SIGNATURE,
    )


def job(data: Data, rules: Rules = QUICK, objective: objectives.Objective = ONLY_BRIER) -> TrainJob:
    """Served one row at a time, so that measuring it is quick."""
    return TrainJob(
        model=MODEL,
        description="Which way does it tip?",
        objective=objective,
        load=lambda: data,
        module=lambda data: torch.nn.Linear(3, 1),
        fit=Fit(epochs=1, batch_rows=64, learning_rate=0.01, weight_decay=0.0),
        baseline=Baseline("always", lambda data: np.full(data.test.rows, 0.5)),
        target=Target(mix={1: 1.0}),
        promotion=rules,
    )


def graph(error: float = 0.0, *, layers: int = 0, signature: Signature = SIGNATURE) -> bytes:
    """The weights of the truth and `error` more of each; `layers` are products with 512 x 512 weights that change no answer."""
    constants: dict[str, Array] = {
        "weights": (TRUTH + np.float32(error)).reshape(3, 1),
        "wide": np.zeros((3, 512), np.float32),
        **{f"square_{i}": np.full((512, 512), i, np.float32) for i in range(layers)},
        "narrow": np.zeros((512, 1), np.float32),
    }
    name = signature.outputs[0].name
    nodes = [helper.make_node("MatMul", ["features", "weights"], ["logit"])]
    logit = "logit"
    if layers:
        nodes.append(helper.make_node("MatMul", ["features", "wide"], ["layer_0"]))
        nodes += [
            helper.make_node("MatMul", [f"layer_{i}", f"square_{i}"], [f"layer_{i + 1}"], name=f"product_{i}")
            for i in range(layers)
        ]
        nodes.append(helper.make_node("MatMul", [f"layer_{layers}", "narrow"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["logit", "nothing"], ["sum"]))
        logit = "sum"
    nodes.append(helper.make_node("Sigmoid", [logit], [name]))
    used = {name for node in nodes for name in node.input}
    return graph_of(nodes, signature, {name: value for name, value in constants.items() if name in used})


def artifact(
    folder: Path, data: Data, body: bytes, *, run_id: str, rows_max: int = 5_000, model: str = MODEL
) -> Manifest:
    """As `trainers.course` leaves it; with `rows_max` 0 from before rows travelled."""
    manifest, contents = manifest_of(model, data.signature, {"fp32": body})
    roles: dict[str, tuple[Role, bytes]] = {}
    if rows_max:
        roles[evaluation.FILE] = ("evaluation", evaluation.pack(evaluation.freeze(data, rows_max)))
    files = tuple(publish.describe(name, body, role) for name, (role, body) in roles.items())
    manifest = msgspec.structs.replace(
        manifest,
        files=(*manifest.files, *files),
        lineage=msgspec.structs.replace(manifest.lineage, run_id=run_id, data=data.sources),
    )
    publish.write(folder, manifest, contents | {name: body for name, (_, body) in roles.items()})
    return manifest


async def published(
    store: ObjectStore,
    folder: Path,
    run_id: str,
    error: float = 0.0,
    *,
    data: Data | None = None,
    rules: Rules = QUICK,
    objective: objectives.Objective = ONLY_BRIER,
    alias: str = "champion",
    body: bytes | None = None,
    rows_max: int = 5_000,
) -> Candidate:
    """A version in the store that nothing was decided about."""
    data = data or made()
    artifact(folder / run_id, data, body or graph(error), run_id=run_id, rows_max=rows_max)
    record = await publish.publish(store, folder / run_id, run_id=run_id, now_ns=NOW_NS)
    return Candidate(job(data, rules, objective), data, record, folder / run_id, alias, run_id, "anna")


async def decided(store: ObjectStore, candidate: Candidate, now_ns: int = NOW_NS) -> Decided:
    return await decision.decide(store, candidate, lambda *_: None, now_ns=lambda: now_ns)

"""Digests that say whether two runs are the same: of the job with its code, and of the data it works on.

What is equal by these may be resumed, and a stage that was done for them need not be done again. Called by `trainers.run`.
"""

import hashlib
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from trainers.arrays import Array
from trainers.job import Data, Split, TrainJob
from trainers.lineage import parameters

PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")
"""Another version of one of these may make other bytes of the same job."""


def spec_sha256(job: TrainJob, recipe: str) -> str:
    """Of the recipe's name, parameters, seed, terms and source files."""
    terms = [job.objective.task, job.objective.head, *(metric.name for metric in job.objective.metrics)]
    code = sorted(_sha256(Path(name).read_bytes()) for name in _sources(job))  # where a source lies says nothing
    plain = {
        "recipe": recipe,
        "model": job.model,
        "seed": job.fit.seed,
        "parameters": parameters(job),
        "terms": terms,
        "limits": job.limits,
        "promotion": job.promotion,
        "target": [job.target.platform, *sorted(job.target.mix.items())],
        "lengths": job.lengths,
        "code": code,
    }
    return _sha256(msgspec.json.encode(plain, order="deterministic"))


def data_sha256(data: Data) -> dict[str, str]:
    """Of every array of each split, by the split's name."""
    return {
        name: _split_sha256(split)
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }


def environment() -> Mapping[str, str]:
    """The versions that decide what the stages after training make of its weights."""
    return {package: version(package) for package in PACKAGES}


def _sources(job: TrainJob) -> set[str]:
    """The files that the recipe's own functions are written in; a function without one has none to change."""
    found = set()
    for function in (job.load, job.module, job.baseline.predict, job.objective.loss, job.fit.optimizer):
        try:
            found.add(inspect.getsourcefile(inspect.unwrap(function)) or "")
        except TypeError:
            continue
    return {name for name in found if name and Path(name).is_file()}


def _split_sha256(split: Split) -> str:
    digest = hashlib.sha256()
    for name in sorted(split.inputs):
        _update(digest, name, split.inputs[name])
    _update(digest, "targets", split.targets)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, values: Array) -> None:
    digest.update(f"{name} {values.dtype.kind} {values.shape};".encode())
    if values.dtype.kind in "OU":
        digest.update("\\0".join(map(str, values.ravel().tolist())).encode())
    else:
        digest.update(np.ascontiguousarray(values).data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

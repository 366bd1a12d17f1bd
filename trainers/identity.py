"""Digests that say whether two runs are the same: of the job with its code, and of the data it works on.

What is equal by these may be resumed, and a stage that was done for them need not be done again. Called by `trainers.run`.
"""

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any  # functions of any kind

import msgspec
import numpy as np

from trainers.arrays import Array
from trainers.job import Data, Split, TrainJob
from trainers.lineage import parameters

PACKAGES = ("steelyard", "torch", "onnx", "onnxruntime", "onnxscript", "numpy", "scikit-learn")
"""Another version of one of these may make other bytes of the same job."""

STRINGS_AT_ONCE = 1 << 16
"""As text, a column of strings takes several times its memory: never all of it at once."""


def spec_sha256(job: TrainJob, recipe: str) -> str:
    """Of the recipe's name, parameters, terms and source files, and of how it is fitted."""
    terms = [job.objective.task, job.objective.head, *(metric.name for metric in job.objective.metrics)]
    # Where a source lies says nothing.
    code = sorted(_sha256(Path(name).read_bytes()) for name in _sources(job, recipe))
    fit = {name: value for name in job.fit.__struct_fields__ if not callable(value := getattr(job.fit, name))}
    plain = {
        "recipe": recipe,
        "model": job.model,
        "fit": fit,
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
    """Of every array of each split, by the split's name, and under `described` of all that comes with them."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: _split_sha256(split) for name, split in splits.items()} | {"described": _described_sha256(data)}


def environment() -> Mapping[str, str]:
    """The versions that decide what the stages after training make of its weights."""
    return {package: version(package) for package in PACKAGES}


def _sources(job: TrainJob, recipe: str) -> set[str]:
    """The files that the recipe and its functions are written in; a function without one has none to change."""
    found = {getattr(sys.modules.get(recipe.partition(":")[0]), "__file__", None)}
    for function in _functions(job):
        try:
            found.add(inspect.getsourcefile(function))
        except (TypeError, OSError):  # built in; a class that was typed at a prompt
            continue
    return {name for name in found if name and Path(name).is_file()}


def _functions(job: TrainJob) -> Iterator[Any]:
    """What the job calls, without what is wrapped around it."""
    objective = job.objective
    given = [job.load, job.module, job.baseline.predict, job.fit.optimizer, job.fit.schedule, job.calibration]
    for function in (*given, objective.loss, *(metric.measure for metric in objective.metrics)):
        inner: Any = function
        while isinstance(inner, partial):
            inner = inner.func
        inner = inspect.unwrap(inner)
        yield inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner)


def _split_sha256(split: Split) -> str:
    digest = hashlib.sha256()
    for name in sorted(split.inputs):
        _update(digest, name, split.inputs[name])
    _update(digest, "targets", split.targets)
    return digest.hexdigest()


def _described_sha256(data: Data) -> str:
    digest = hashlib.sha256()
    parts = (
        data.sources,
        data.examples,
        data.signature,
        data.vocabularies,
        data.split,
        data.labels,
        data.mask,
        data.text,
    )
    files = {name: (role, _sha256(content)) for name, (role, content) in data.files.items()}
    digest.update(msgspec.json.encode((*parts, files), order="deterministic"))
    for name in sorted(data.slices):
        _update(digest, name, data.slices[name])
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, values: Array) -> None:
    digest.update(f"{name} {values.dtype.kind} {values.shape};".encode())
    if values.dtype.kind not in "OUT":
        digest.update(np.ascontiguousarray(values).data)
        return
    texts = values.reshape(-1)
    for start in range(0, len(texts), STRINGS_AT_ONCE):
        # Written as Python would: None is not 'None', and no string can contain the separator.
        digest.update("\0".join(map(repr, texts[start : start + STRINGS_AT_ONCE].tolist())).encode())
        digest.update(b"\0")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

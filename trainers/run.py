"""One training run, from job to alias: validate, fit, export, quantize, evaluate, publish, promote.

The artifact is finished in the run's own folder before the store sees any of it, so the same run id again only publishes what is
there. Knows no command line: progress goes to a `Report`, the answer is a `Result`.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.contract import codec, layout, prices
from gateway.contract.manifest import Manifest
from gateway.contract.registry import Promotion, VersionRecord
from gateway.contract.words import NAME_RULE, is_name
from gateway.errors import InvalidInput
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from trainers import comparison, lineage, plots, publish
from trainers.arrays import Array
from trainers.artifact import Described, assemble
from trainers.errors import DataError, SpecError
from trainers.evaluate import judge
from trainers.evaluate.vectors import vectors
from trainers.export.exporting import export
from trainers.fit.loop import fit
from trainers.job import Data, Report, TrainJob
from trainers.quantize import candidates

T = TypeVar("T")


class Run(msgspec.Struct, frozen=True):
    """What is decided outside the job. `promote_to` None publishes without promoting."""

    recipe: str
    run_id: str
    folder: Path
    actor: str
    promote_to: str | None = layout.CHAMPION
    priced_as: str | None = None


class Result(msgspec.Struct, frozen=True):
    manifest: Manifest
    record: VersionRecord
    promotion: Promotion | None


async def run(job: TrainJob, run: Run, store: ObjectStore, report: Report) -> Result:
    """Train unless this run has trained already, then publish and promote. Raises any `TrainerError` or store error."""
    _validate_names(job, run)
    book = prices.load()
    finished = _finished(job, run)
    # Before training, not after: a store that cannot be written to is found in a second and not in hours.
    await publish.put_once(store, layout.price_book(book.sha256), book.data)
    manifest = finished or train(job, run, book, report)
    record = await publish.publish(store, run.folder, run_id=run.run_id, now_ns=time.time_ns())
    promotion = await _promote(store, record, manifest, run) if run.promote_to else None
    return Result(manifest, record, promotion)


def train(job: TrainJob, run: Run, book: prices.PriceBook, report: Report) -> Manifest:
    """Everything up to the finished artifact in the run's folder. Blocks: hours of it are CPU and GPU work."""
    began = time.monotonic()
    data = _step(report, "load", job.load)
    _validate_data(data)
    fitted = fit(job, data, report)
    graph = _step(report, "export", lambda: export(fitted.module, data, job.objective, job.lengths))
    offered = _step(report, "quantize", lambda: candidates.offer(graph, _calibration(job, data)))
    verdict = judge.judge(offered, data, job.terms, report)
    compared = _step(report, "baseline", lambda: comparison.compare(job, data, verdict))
    golden = vectors(offered, verdict.variants, data, job.terms)
    described = Described(
        model=job.model,
        task=job.objective.task,
        description=job.description,
        split=data.split,
        signature=data.signature,
        examples=data.examples,
        labels=data.labels,
        files=data.files,
        plots=plots.plots(job.objective, fitted.history, compared.targets, compared.answers, data.labels),
    )
    artifact = assemble(
        described,
        offered,
        verdict,
        golden,
        evaluations=compared.evaluations,
        lineage=lineage.lineage(job, recipe=run.recipe, run_id=run.run_id, sources=data.sources, device=fitted.device),
        cost=lineage.training_cost(book, seconds=time.monotonic() - began, sku=run.priced_as, device=fitted.device),
    )
    artifact.write(run.folder)
    return artifact.manifest


def _step(report: Report, name: str, work: Callable[[], T]) -> T:
    """A step that cannot tell how far it is."""
    report(name, 0, 1)
    done = work()
    report(name, 1, 1)
    return done


def _calibration(job: TrainJob, data: Data) -> Mapping[str, Array]:
    return job.calibration(data) if job.calibration else data.validation.inputs


def _finished(job: TrainJob, run: Run) -> Manifest | None:
    """The artifact an earlier attempt of this run left. `SpecError` when the run id was used for something else."""
    path = run.folder / publish.MANIFEST
    if not path.is_file():
        return None
    manifest = codec.decode(path.read_bytes(), Manifest)
    made = (manifest.model, manifest.lineage.recipe, manifest.lineage.seed, manifest.lineage.parameters)
    if made != (job.model, run.recipe, job.fit.seed, lineage.parameters(job)):
        raise SpecError(f"run '{run.run_id}' was made with other parameters; choose another run id")
    return manifest


async def _promote(store: ObjectStore, record: VersionRecord, manifest: Manifest, run: Run) -> Promotion:
    assert run.promote_to is not None
    return await publish.promote(
        store,
        model=record.model,
        alias=run.promote_to,
        version=record.version,
        actor=run.actor,
        reason=f"run {run.run_id}: {manifest.choice}",
        now_ns=time.time_ns(),
    )


def _validate_names(job: TrainJob, run: Run) -> None:
    """Before hours of training and not after."""
    try:
        releasing.check_names(job.model, run.promote_to or layout.CHAMPION)
    except InvalidInput as error:
        raise SpecError(str(error)) from error
    if not is_name(run.run_id):
        raise SpecError(f"run id '{run.run_id}' must be {NAME_RULE}")


def _validate_data(data: Data) -> None:
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        lengths = {split.rows, *(len(values) for values in split.inputs.values())}
        if len(lengths) != 1 or not split.rows:
            raise DataError(f"the {name} split is empty or ragged: its arrays have {sorted(lengths)} rows")
        if split.inputs.keys() != {tensor.name for tensor in data.signature.inputs}:
            raise DataError(f"the {name} split has inputs {sorted(split.inputs)}; the signature names others")

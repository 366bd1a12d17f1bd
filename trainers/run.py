"""One training run, from job to alias: load, fit, export, quantize, evaluate, publish, promote.

Each of the middle four is a stage that an earlier attempt may have finished already; the artifact is complete before the registry
sees any of it. Knows no command line: progress goes to a `Report`, the answer is a `Result`.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.contract import codec, layout, prices
from gateway.contract.checkpoint import Origin
from gateway.contract.manifest import GpuFigure, Manifest
from gateway.contract.promotions import Decision
from gateway.contract.registry import Promotion, VersionRecord
from gateway.contract.runs import RunRecord
from gateway.contract.words import NAME_RULE, is_name
from gateway.errors import InvalidInput, ModelNotFound
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from gateway.registry.reading import Registry
from trainers import identity, intake, lineage, publish, wellformed
from trainers.attempt import Attending, attending
from trainers.checkpoint.state import fingerprint
from trainers.course import Course, read_benchmark, read_history, step
from trainers.errors import DataError, SpecError
from trainers.fit import device as places
from trainers.fit.loop import fit
from trainers.fit.world import World
from trainers.interruption import signals
from trainers.job import Data, Report, TrainJob
from trainers.promotion import decision
from trainers.promotion.decision import Candidate
from trainers.runs import budget
from trainers.runs.stages import StageResult, digest
from trainers.safety import Safety, keeper
from trainers.signing import Signer
from trainers.spec.jobspec import DataPin

FINISHING_S = 60.0
"""Kept of a budget for what comes after the last step: export, judging, publishing."""


SEED_MAX = 2**32 - 1
"""numpy takes no larger one."""


class Run(msgspec.Struct, frozen=True):
    """What is decided outside the job. `promote_to` None publishes without promoting. `arguments` ask for the same run again."""

    recipe: str
    run_id: str
    folder: Path
    actor: str
    promote_to: str | None = layout.CHAMPION
    priced_as: str | None = None
    device: str | None = None
    safety: Safety = Safety()
    pins: tuple[DataPin, ...] = ()
    image: str = ""
    attempt_s: float | None = None
    max_cost_picousd: int | None = None
    signer: Signer | None = None
    arguments: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """`is_cut_short`: the cost cap ended training; the best so far is published, and never promoted.

    `decision` is None where no promotion was asked for; one to hold the version back leaves `promotion` None.
    """

    manifest: Manifest
    record: VersionRecord
    promotion: Promotion | None
    is_cut_short: bool = False
    decision: Decision | None = None


async def run(job: TrainJob, run: Run, store: ObjectStore, report: Report, world: World | None = None) -> Result:
    """Go on from where this run's last attempt got to, then publish and promote. Raises any `TrainerError` or store error."""
    _validate(job, run)
    book = prices.load()
    # Before training, not after: a store that cannot be written to is found in a second and not in hours.
    await publish.put_once(store, layout.price_book(book.sha256), book.data)
    record = _record(job, run)
    async with attending(store, record, folder=run.folder, book=book, priced_as=run.priced_as) as attended:
        if run.attempt_s is not None:
            asyncio.get_running_loop().call_later(
                run.attempt_s, attended.stops.interruption.request, "attempt's time is over"
            )
        until_s = _affordable_until(run, attended)
        data = await in_thread(_loaded, job, run.pins, attended.watched(report))
        course = Course(job, data, attended.watched(report))
        artifact, is_cut_short = await attended.stopped_when_cancelled(
            _artifact(course, run, store, attended, world or World(), until_s)
        )
        attended.stops.is_budget_spent = is_cut_short
        manifest = codec.decode((artifact.folder / publish.MANIFEST).read_bytes(), Manifest)
        await attended.require_newest(store)
        version = await publish.publish(
            store, artifact.folder, run_id=run.run_id, now_ns=time.time_ns(), signer=run.signer
        )
        if run.promote_to is None or is_cut_short:
            return Result(manifest, version, None, is_cut_short)
        candidate = Candidate(job, data, version, artifact.folder, run.promote_to, run.run_id, run.actor)
        decided = await decision.decide(store, candidate, attended.watched(report))
        return Result(manifest, version, decided.promotion, decision=decided.decision)


async def _artifact(
    course: Course, run: Run, store: ObjectStore, attended: Attending, world: World, until_s: float | None
) -> tuple[StageResult, bool]:
    """The four stages; each is known by the digest of all that decides its result."""
    job, stages, loop = course.job, attended.stages, asyncio.get_running_loop()
    data_sha256 = await in_thread(identity.data_sha256, course.data)
    spec_sha256 = attended.attempt.run.spec_sha256
    begun = digest(spec_sha256, data_sha256, dict(identity.environment()))

    def train(folder: Path) -> None:
        device = places.choose(run.device)
        host = fingerprint(device)  # of this thread, which trains
        origin = Origin(spec_sha256=spec_sha256, data_sha256=data_sha256, fingerprint=host)
        kept = keeper(
            store,
            attended,
            origin,
            run.safety,
            loop,
            until_s=until_s,
            processes=world.size,
            is_gpu=device.type == "cuda",
        )
        world.call("fit")
        course.fit(folder, kept, world, run.device)

    fitted = await stages.run("fit", begun, train)
    if fitted.was_stored:
        world.call("nothing")
    history = read_history(fitted.folder)
    graph = await stages.run("export", digest(begun, fitted.digests), lambda to: course.export(to, fitted.folder))
    offered = await stages.run("quantize", digest(begun, graph.digests), lambda to: course.quantize(to, graph.folder))
    device = await in_thread(places.here, run.device)
    bench: dict[str, str] = {}
    figures: tuple[GpuFigure, ...] = ()
    if device.type == "cuda":
        found = await stages.run(
            "benchmark",
            digest(begun, graph.digests, places.title(device)),
            lambda to: course.benchmark(to, fitted.folder, graph.folder, device),
        )
        bench, figures = found.digests, read_benchmark(found.folder).figures
    made = lineage.Origin(
        run_id=run.run_id,
        recipe=run.recipe,
        device=history.device,
        spec_sha256=spec_sha256,
        attempts=attended.attempt.number,
        resumed_at=history.resumed_at,
        bit_exact=history.bit_exact,
        evaluation_sha256=data_sha256["test"],
        parent=await _champion(store, job.model),
        image=run.image,
    )
    told = await in_thread(lineage.lineage, job, course.data.sources, made)
    artifact = await stages.run(
        "evaluate",
        digest(begun, offered.digests | bench),
        lambda to: course.evaluate(to, offered.folder, history, told, attended.cost, figures),
    )
    return artifact, history.is_cut_short


async def _champion(store: ObjectStore, model: str) -> int:
    """The version that answers now; 0 when none does."""
    try:
        return (await Registry(store).alias(model)).promotion.version
    except ModelNotFound:
        return 0


def follow(job: TrainJob, device: str | None, world: World) -> None:
    """What every process but the first does: its share of the training, if there is any to do.

    Signals are the first one's business: it would wait in vain for the gradients of a process that stopped before it has saved.
    """
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    data = _loaded(job, (), lambda *_: None)
    if world.call("") == "fit":
        fit(job, data, lambda *_: None, device, world=world)


def _affordable_until(run: Run, attended: Attending) -> float | None:
    """When training must stop for the rest to be paid for, on the monotonic clock; None without a cap."""
    record = attended.attempt.record
    if run.max_cost_picousd is not None and record.usd_per_hour is None:
        raise SpecError(
            f"a cost cap needs a price per hour, and the price book has none for '{record.sku}'; name a machine type that it "
            "prices with --priced-as, such as c7i.large or g5.xlarge"
        )
    left_s = budget.check(
        max_cost_picousd=run.max_cost_picousd,
        earlier_picousd=attended.attempt.before.cost_picousd,
        usd_per_hour=record.usd_per_hour,
        reserve_s=FINISHING_S,
        least_s=run.safety.interval.min_s,
    )
    return None if left_s is None else time.monotonic() - attended.tracker.elapsed_ns / 1e9 + left_s


def _loaded(job: TrainJob, pinned: Sequence[DataPin], report: Report) -> Data:
    try:
        data = step(report, "load", job.load)
    except (
        FileNotFoundError
    ) as error:  # what a recipe's data lacks is no defect; a network that fails may be tried again
        raise DataError(f"the recipe's data is not here: {error}") from error
    intake.require(pinned, data.sources, datetime.now(UTC).date())
    wellformed.require(data)
    return data


def _record(job: TrainJob, run: Run) -> RunRecord:
    return RunRecord(
        run_id=run.run_id,
        recipe=run.recipe,
        model=job.model,
        seed=job.fit.seed,
        parameters=lineage.parameters(job),
        spec_sha256=identity.spec_sha256(job, run.recipe),
        actor=run.actor,
        created_ns=time.time_ns(),
        arguments=run.arguments,
    )


def _validate(job: TrainJob, run: Run) -> None:
    """Before hours of training and not after."""
    try:
        releasing.check_names(job.model, run.promote_to or layout.CHAMPION)
    except InvalidInput as error:
        raise SpecError(str(error)) from error
    if not is_name(run.run_id):
        raise SpecError(f"run id '{run.run_id}' must be {NAME_RULE}")
    for name, least in (("epochs", 1), ("batch_rows", 1), ("patience", 0), ("seed", 0)):
        if getattr(job.fit, name) < least:
            raise SpecError(f"{name} is {getattr(job.fit, name)}; it must be at least {least}")
    if job.fit.seed > SEED_MAX:
        raise SpecError(f"seed is {job.fit.seed}; it must be at most {SEED_MAX}")

"""An ONNX file from anywhere through the same steps as a trained model: read, prove, quantize, judge, publish, promote.

Knows no command line and no torch. The same file with the same options is the same version: it is looked for before anything is
measured. Called by `trainers.cli.imports`.
"""

import tempfile
import time
from pathlib import Path

import msgspec

from gateway.contract import codec, layout, prices
from gateway.contract.manifest import DataSource, Lineage, Manifest, TrainingCost
from gateway.contract.prices import PriceBook
from gateway.contract.promotions import Decision
from gateway.contract.registry import Promotion, VersionRecord
from gateway.errors import InvalidInput
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import fetching, releasing
from gateway.registry.reading import Registry
from trainers import artifact, card, lineage, publish, signing
from trainers.artifact import Artifact, Described
from trainers.errors import DataError, SpecError
from trainers.evaluate.vectors import vectors
from trainers.importing import declaring, judging, proving, reading, rewriting, samples
from trainers.importing.asked import Changes, Words
from trainers.importing.declaring import Declared
from trainers.importing.reading import Source
from trainers.importing.samples import Samples
from trainers.job import BATCHES, Report, Target
from trainers.objectives import Task

RECIPE = "import"
PACKAGES = ("steelyard", "onnx", "onnxruntime", "numpy")

REAL = "of the golden file: its first half fixed quantization scales, its second half judged"
DRAWN = "none: no golden file was given, so drawn rows only proved that the graph runs, and nothing was quantized"


class Import(msgspec.Struct, frozen=True):
    """What to import. `promote_to` None publishes without promoting. `folder` is for the artifact before it is published."""

    name: str
    file: Path
    folder: Path
    actor: str
    golden: Path | None = None
    task: Task = "custom"
    description: str = ""
    changes: Changes = Changes()
    words: Words = Words()
    batches: tuple[int, ...] = BATCHES
    promote_to: str | None = layout.CHAMPION
    signer: signing.Signer | None = None


class Imported(msgspec.Struct, frozen=True):
    """`is_new` is false when this very import had been published before."""

    manifest: Manifest
    record: VersionRecord
    promotion: Promotion | None
    is_new: bool
    decision: Decision | None = None
    """Always None: who imports a model decides about it, no gate compares it with what answers now."""


async def bring(asked: Import, store: ObjectStore, report: Report) -> Imported:
    """Raises any `TrainerError` or store error; nothing is half published then."""
    try:
        releasing.check_names(asked.name, asked.promote_to or layout.CHAMPION)
    except InvalidInput as error:
        raise SpecError(str(error)) from error
    source = await in_thread(reading.read, asked.file)
    run_id = f"{RECIPE}-{identity(asked, source)[:24]}"
    found = await _published(store, asked.name, run_id)
    record = found or await _publish(asked, source, run_id, store, report)
    if found is not None and asked.signer is not None:
        await _sign(store, found, asked.signer)
    manifest = await Registry(store).manifest(record.model, record.manifest_sha256)
    promotion = await _promote(store, record, manifest, asked) if asked.promote_to else None
    return Imported(manifest, record, promotion, is_new=found is None)


async def _publish(asked: Import, source: Source, run_id: str, store: ObjectStore, report: Report) -> VersionRecord:
    book = prices.load()
    # Before the search, not after: a store that cannot be written to is found in a second.
    await publish.put_once(store, layout.price_book(book.sha256), book.data)
    made = await in_thread(prepared, asked, source, run_id, book, report)
    folder = asked.folder / run_id
    await in_thread(made.write, folder)
    return await publish.publish(store, folder, run_id=run_id, now_ns=time.time_ns(), signer=asked.signer)


def identity(asked: Import, source: Source) -> str:
    """The sha256 of all that decides what is published, save the versions of the packages at work."""
    plain = {
        "file": source.sha256,
        "golden": codec.sha256(_golden_bytes(asked.golden)) if asked.golden else "",
        "name": asked.name,
        "task": asked.task,
        "description": asked.description,
        "changes": asked.changes,
        "columns": dict(asked.words.columns),
        "nullable": sorted(asked.words.nullable),
        "labels": asked.words.labels,
        "batches": asked.batches,
    }
    return codec.sha256(msgspec.json.encode(plain, order="deterministic"))


def _golden_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"golden file '{path}': {error.strerror}") from error


def prepared(asked: Import, source: Source, run_id: str, book: PriceBook, report: Report) -> Artifact:
    """The finished artifact; blocks. Raises what `bring` does."""
    declared = declare(asked, source)
    rows = samples.read(asked.golden, declared.signature) if asked.golden else proving.drawn(declared)
    report("prove", 0, 1)
    proving.require_sound(declared, rows, rows_opened=asked.changes.dynamic_batch)
    if asked.changes.is_rewritten or asked.changes.renames or asked.changes.dynamic_batch:
        proving.require_unchanged(source.model, declared, asked.changes, rows)
    proving.require_expected(declared, rows)
    report("prove", 1, 1)
    target = Target(mix=dict.fromkeys(asked.batches, 1.0))
    judged = judging.judge(declared, rows, asked.task, target, asked.words.labels, book, report)
    found = judged.found
    described = Described(
        model=asked.name,
        task=asked.task,
        description=asked.description
        or f"Imported from an ONNX file made by {source.producer or 'an unnamed producer'}.",
        split=REAL if rows.is_real else DRAWN,
        signature=declared.signature,
        examples=judged.data.examples,
        labels=asked.words.labels,
        skipped=found.skipped,
    )
    golden = vectors(found.candidates, found.verdict.variants, judged.data, judged.terms)
    return artifact.assemble(
        described,
        found.candidates,
        found.verdict,
        golden,
        evaluations=judged.evaluations,
        lineage=_lineage(asked, source, rows, run_id),
        cost=TrainingCost(sku=card.IMPORTED, seconds=0.0, cost_picousd=0, price_book_sha256=book.sha256),
    )


def declare(asked: Import, source: Source) -> Declared:
    """The file's graph with the changes asked for, and its signature."""
    model = rewriting.rewritten(source.model, asked.changes)
    signature = declaring.declare(model, asked.changes, asked.words)
    reading.require_valid(model, asked.file.name)
    declared = Declared(model, signature)
    if asked.changes.constants:
        model = rewriting.in_order(reading.parsed(proving.folded(declared.graph), asked.file.name))
        reading.require_valid(model, asked.file.name)
        declared = Declared(model, signature)
    return declared


def _lineage(asked: Import, source: Source, rows: Samples, run_id: str) -> Lineage:
    changes = asked.changes
    parameters: dict[str, str | float | bool] = {
        "file": asked.file.name,
        "file_sha256": source.sha256,
        "file_bytes": float(source.size),
        "producer": source.producer,
        "opset": float(source.opset),
        "ir_version": float(source.model.ir_version),
        "rows": "golden" if rows.is_real else "drawn",
    }
    for name, value in msgspec.structs.asdict(changes).items():
        if value:
            parameters[name] = msgspec.json.encode(value, order="deterministic").decode()
    data = (DataSource(name="golden", sha256=rows.sha256, rows=rows.rows),) if rows.is_real else ()
    environment = lineage.environment(PACKAGES)
    return Lineage(run_id=run_id, recipe=RECIPE, seed=0, data=data, environment=environment, parameters=parameters)


async def _published(store: ObjectStore, model: str, run_id: str) -> VersionRecord | None:
    registry = Registry(store)
    for number in reversed(await registry.versions(model)):
        record = await registry.version(model, number)
        if record.run_id == run_id:
            return record
    return None


async def _sign(store: ObjectStore, record: VersionRecord, signer: signing.Signer) -> None:
    """What was published before, perhaps without this key."""
    with tempfile.TemporaryDirectory(prefix="steelyard-import-") as temporary:
        folder = Path(temporary) / record.model
        await fetching.fetch(store, record.model, record.manifest_sha256, folder)
        await signing.put(store, folder, signer)


async def _promote(store: ObjectStore, record: VersionRecord, manifest: Manifest, asked: Import) -> Promotion:
    assert asked.promote_to is not None
    return await publish.promote(
        store,
        model=record.model,
        alias=asked.promote_to,
        version=record.version,
        actor=asked.actor,
        reason=f"{record.run_id}: {manifest.choice}",
        now_ns=time.time_ns(),
    )

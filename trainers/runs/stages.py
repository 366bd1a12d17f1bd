"""A run's stages in the store, each found again by the digest of its inputs: a retried job starts at the first that is missing.

A stage is a function that writes files into a folder. Its record is written after all of its files, so a record means that they
are there; they are verified before use, and a stage that is not what it was is done again. Called by `trainers.run`.
"""

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from gateway.contract import codec, layout
from gateway.contract.runs import Stage, StageFile, StageRecord
from gateway.contract.words import Sha256, fits
from gateway.errors import ArtifactError, DigestMismatch, ObjectNotFound, PreconditionFailed
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore
from trainers.runs.progress import Tracker
from trainers.runs.records import Attempt

CHUNK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class StageResult(msgspec.Struct, frozen=True):
    """Where a stage's files are on this machine, and their digests by name: what the next stage's inputs are called."""

    record: StageRecord
    folder: Path
    was_stored: bool

    @property
    def digests(self) -> dict[str, str]:
        return {file.name: file.sha256 for file in self.record.files}

    def path(self, name: str) -> Path:
        return self.folder / name


def digest(*inputs: msgspec.Struct | str | int | float | bool | bytes | dict[str, str] | None) -> str:
    """One key for everything that a stage's result depends on, its code's version included. Equal inputs, equal keys."""
    return codec.sha256(msgspec.json.encode(inputs, order="deterministic"))


class Stages:
    """The stages of one attempt. `folder` holds a folder for each; it may be empty, or an earlier attempt's."""

    def __init__(self, store: ObjectStore, attempt: Attempt, folder: Path, tracker: Tracker) -> None:
        self._store = store
        self._attempt = attempt
        self._run_id = attempt.run.run_id
        self._folder = folder
        self._tracker = tracker

    async def run(self, stage: str, inputs_digest: str, work: Callable[[Path], None]) -> StageResult:
        """The stored files of `stage` for these inputs; where there are none, `work(folder)` makes them, in a thread.

        `work` gets an empty folder and leaves plain files in it, at least one. Raises whatever it raises, and store errors. When
        another attempt stored the same stage first, its files are the result: one run has one history.
        """
        if not fits(stage, Stage) or not fits(inputs_digest, Sha256):
            raise ValueError(
                f"stage {stage!r} with inputs {inputs_digest!r}: a short lower-case name and a sha256 are wanted"
            )
        folder = self._folder / stage
        key = layout.stage(self._run_id, stage, inputs_digest)
        stored = await self._stored(key, stage, folder)
        if stored is not None:
            return stored
        with self._tracker.stage(stage):
            made = await self._make(key, stage, inputs_digest, work, folder)
        return made or await self.run(stage, inputs_digest, work)

    async def _make(
        self, key: str, stage: str, inputs_digest: str, work: Callable[[Path], None], folder: Path
    ) -> StageResult | None:
        """Do it and store it. None when another attempt stored it first, and damaged."""
        began_ns = time.monotonic_ns()
        await in_thread(_empty, folder)
        await in_thread(work, folder)
        files = await in_thread(_described, folder, stage)
        for file in files:
            await self._put(folder / file.name, file)
        record = StageRecord(
            run_id=self._run_id,
            stage=stage,
            key=inputs_digest,
            attempt=self._attempt.number,
            finished_ns=time.time_ns(),
            elapsed_ns=time.monotonic_ns() - began_ns,
            files=files,
        )
        try:
            await self._store.put_if_absent(key, codec.encode(record))
        except PreconditionFailed:
            return await self._stored(key, stage, folder)
        return StageResult(record, folder, was_stored=False)

    async def _stored(self, key: str, stage: str, folder: Path) -> StageResult | None:
        """None when it is not there or not what it was; then nothing of it is left in the way."""
        try:
            body = (await self._store.get(key)).body
        except ObjectNotFound:
            return None
        try:
            record = codec.decode(body, StageRecord, what=f"stage '{stage}' of run '{self._run_id}'")
            await in_thread(_keep, folder, record)
            for file in record.files:
                await self._fetch(folder, file)
        except (ArtifactError, ObjectNotFound) as error:
            log.warning("stage '%s' of run '%s' is damaged in the store and done again: %s", stage, self._run_id, error)
            await self._store.delete(key)
            return None
        return StageResult(record, folder, was_stored=True)

    async def _fetch(self, folder: Path, file: StageFile) -> None:
        """From the store, unless an earlier attempt left it here. A blob that is not what it was is removed from the store."""
        path = folder / file.name
        if await in_thread(_has, path, file):
            return
        key = layout.run_blob(self._run_id, file.sha256)
        try:
            await self._download(key, path, file)
        except DigestMismatch:
            await self._store.delete(key)
            raise

    async def _download(self, key: str, path: Path, file: StageFile) -> None:
        sha256 = hashlib.sha256()
        with await in_thread(path.open, "wb") as target:
            async for chunk in self._store.stream(key, chunk_bytes=CHUNK_BYTES):
                sha256.update(chunk)
                await in_thread(target.write, chunk)
        if sha256.hexdigest() != file.sha256:
            raise DigestMismatch(f"'{key}' has other bytes than its name says")

    async def _put(self, path: Path, file: StageFile) -> None:
        key = layout.run_blob(self._run_id, file.sha256)
        try:
            await self._store.put_stream_if_absent(key, _chunks(path), sha256=file.sha256, size=file.size)
        except PreconditionFailed:
            if (await self._store.head(key)).size == file.size:
                return
            log.warning("'%s' has another size than its name stands for; it is replaced", key)
            await self._store.delete(key)
            await self._store.put_stream_if_absent(key, _chunks(path), sha256=file.sha256, size=file.size)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
            yield chunk


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _keep(folder: Path, record: StageRecord) -> None:
    """The folder, without anything that is not a result."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in {file.name for file in record.files}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _has(path: Path, file: StageFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and _sha256(path) == file.sha256


def _described(folder: Path, stage: str) -> tuple[StageFile, ...]:
    """Raises ValueError for what is no plain file, or for no file: a bug of the stage."""
    paths = sorted(folder.iterdir())
    if not paths or not all(path.is_file() and not path.is_symlink() for path in paths):
        raise ValueError(f"stage '{stage}' must leave plain files in its folder, at least one; it left {paths}")
    return tuple(StageFile(path.name, _sha256(path), path.stat().st_size) for path in paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Checkpoints of one small run: saved and resumed as a trainer does, and the files of one in a folder, to be spoiled."""

from pathlib import Path

import torch

from gateway.contract import codec, layout
from gateway.contract.checkpoint import Latest, Origin
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from trainers.checkpoint.state import Snapshot
from trainers.checkpoint.store import Checkpoints, Options, open_run

RUN = "run-1"
ORIGIN = Origin("a" * 64, {"train": "b" * 64}, {"device": "cpu", "threads": "2", "torch": "2.13.0"})
LENIENT = Options(strict_resume=False)


def snapshot(step: int) -> Snapshot:
    return Snapshot(
        step, {"weights": torch.full((1000,), float(step))}, {"model": {"w": {"$tensor": "weights"}}}, {"e": 1}
    )


async def saved(
    store: ObjectStore, *steps: int, options: Options | None = None, origin: Origin = ORIGIN
) -> Checkpoints:
    attempt = await open_run(store, RUN, origin, options=options)
    for step in steps:
        await attempt.save(snapshot(step))
    return attempt


async def resumed_step(store: ObjectStore) -> int | None:
    resumed = await (await open_run(store, RUN, ORIGIN)).latest()
    if resumed is None:
        return None
    assert torch.equal(resumed.snapshot.tensors["weights"], torch.full((1000,), float(resumed.snapshot.step)))
    return resumed.snapshot.step


async def pointer(store: ObjectStore) -> Latest:
    return codec.decode((await store.get(layout.latest_checkpoint(RUN))).body, Latest)


def at(folder: LocalStore, step: int, name: str) -> Path:
    return folder.path(layout.checkpoint_file(RUN, step, 1, name))


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0x10
    path.write_bytes(body)

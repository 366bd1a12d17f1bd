"""The processes that train one model together: one, or as many as torchrun started on this machine, each with a GPU of its own.

Each takes its share of every batch; gradients are averaged over all of them. The first one alone reports, validates and saves, and
tells the others what it found. Data order does not depend on how many there are.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, TypeVar

import msgspec
import torch
from torch import distributed

from trainers.errors import SpecError

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: loading and validation happen in between, and take them unequally long."""


class World(msgspec.Struct, frozen=True):
    """`rank` of `size`; alone unless torchrun says otherwise. `called`: the others know whether there is training to do."""

    rank: int = 0
    size: int = 1
    called: threading.Event = msgspec.field(default_factory=threading.Event)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch: torch.Tensor) -> tuple[torch.Tensor, float]:
        """This process's rows of a batch, and by what its mean loss counts so that the average is that of the whole batch.

        A batch with fewer than two rows for each process is computed by all of them: batch normalization takes no single row.
        """
        if self.size == 1 or len(batch) < 2 * self.size:
            return batch, 1.0
        mine = torch.tensor_split(batch, self.size)[self.rank]
        return mine, len(mine) * self.size / len(batch)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Over all processes."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.size
        return value

    def tell(self, value: T) -> T:
        """What the first process says, to all of them."""
        if self.size == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    def call(self, word: Literal["fit", "nothing", ""]) -> str:
        """The first process says once whether there is training to do, `fit` or `nothing`; the others hear it."""
        self.called.set()
        return self.tell(word)

    def dismiss(self) -> None:
        """The first process ends, and never came to training: the others would wait for its word, `PATIENCE` long on GPUs."""
        if self.is_first and not self.called.is_set():
            with contextlib.suppress(RuntimeError):  # they are gone already
                self.call("nothing")

    def together(self, module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        """The module as this process should call it, so that its gradients are everybody's."""
        if self.size == 1:
            return module
        wrapped: torch.nn.Module = torch.nn.parallel.DistributedDataParallel(
            module, device_ids=[device] if device.type == "cuda" else None
        )
        return wrapped


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes, until the end of the block. Raises `SpecError` on more than one machine."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if int(os.environ.get("LOCAL_WORLD_SIZE", size)) != size:
        raise SpecError("training over several machines is not supported; start torchrun with one node")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        world = World(rank=distributed.get_rank(), size=size)
        try:
            yield world
        finally:
            world.dismiss()
        distributed.barrier()  # gloo aborts a process whose peer has left: nobody leaves before the first one is done
    finally:
        # This ends gloo's threads, except after a `DistributedDataParallel` (PyTorch 2.13): then they run until the process ends.
        distributed.destroy_process_group()

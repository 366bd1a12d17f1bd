"""A split as a module takes it: one tensor per input of the signature, strings as indices of their vocabularies, and targets.

`Rows` gives batches of it. What fits on the GPU beside the model is put there once; more is kept in pinned memory and copied while
the GPU computes, by a thread that stays `AHEAD` batches in front.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence

import msgspec
import torch

from trainers.encoding import encoded
from trainers.job import Data, Split
from trainers.objectives import as_targets

RESIDENT_SHARE_MAX = 0.25
"""Of the GPU's free memory: the rest is for the model, its gradients and what a batch needs."""

AHEAD = 4
"""Batches copied ahead. More would only hold memory: a loader that is slower than the GPU stays slower."""

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]


class Rows(msgspec.Struct, frozen=True):
    """`inputs` each [rows, ...] and `targets` [rows], on the device they are trained on or in pinned memory of the host."""

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def is_resident(self) -> bool:
        return self.targets.device == self.device

    def batches(self, indices: Sequence[torch.Tensor]) -> Iterator[Batch]:
        """The rows of each tensor of indices, on the device, in this order."""
        if self.is_resident:
            yield from (self._picked(index.to(self.device)) for index in indices)
        else:
            yield from self._copied_ahead(indices)

    def in_order(self, batch_rows: int) -> Iterator[Batch]:
        return self.batches(torch.split(torch.arange(len(self)), batch_rows))

    def _picked(self, index: torch.Tensor) -> Batch:
        return tuple(values[index] for values in self.inputs), self.targets[index]

    def _copied_ahead(self, indices: Sequence[torch.Tensor]) -> Iterator[Batch]:
        """A thread picks rows into pinned memory; the copy to the device overlaps with what the GPU does meanwhile."""
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
        is_over = threading.Event()

        def put(item: Batch | BaseException | None) -> None:
            while not is_over.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.1)
                    return

        def fill() -> None:
            try:
                torch.cuda.set_device(self.device)  # a new thread has the first GPU, and would take memory there
                for index in indices:
                    inputs, targets = self._picked(index)
                    put((tuple(values.pin_memory() for values in inputs), targets.pin_memory()))
                put(None)
            except BaseException as error:  # raised again where the batches are used
                put(error)

        thread = threading.Thread(target=fill, name="batches", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                inputs, targets = item
                copies = [values.to(self.device, non_blocking=True) for values in (*inputs, targets)]
                yield tuple(copies[:-1]), copies[-1]
        finally:
            is_over.set()
            thread.join()


def rows(data: Data, split: Split, device: torch.device) -> Rows:
    """Strings become indices as in the exported graph: 0 for what is in no vocabulary, i + 1 for category i."""
    inputs = tuple(encoded(tensor, split.inputs[tensor.name], data.vocabularies) for tensor in data.signature.inputs)
    return placed(inputs, as_targets(split.targets), device)


def placed(inputs: tuple[torch.Tensor, ...], targets: torch.Tensor, device: torch.device) -> Rows:
    """On the device when they are small for it."""
    everything = (*inputs, targets)
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if sum(values.nbytes for values in everything) > RESIDENT_SHARE_MAX * free_bytes:
            return Rows(inputs, targets, device)
    return Rows(tuple(values.to(device) for values in inputs), targets.to(device), device)

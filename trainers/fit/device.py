"""Where a job trains and how precisely: the GPU in mixed precision when there is one, else the CPU to the last bit."""

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from trainers.errors import SpecError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Without a fixed workspace cuBLAS may choose another algorithm from run to run."""


def choose(name: str | None) -> torch.device:
    """`cpu` or `cuda`; None takes CUDA when there is one. Under torchrun it is this process's own GPU."""
    has_cuda = torch.cuda.is_available()
    if name is None:
        name = "cuda" if has_cuda else "cpu"
    if name not in {"cpu", "cuda"} or (name == "cuda" and not has_cuda):
        raise SpecError(f"device '{name}' is not here; there is: {'cpu, cuda' if has_cuda else 'cpu'}")
    if name == "cpu":
        return torch.device("cpu")
    mine, there_are = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if mine >= there_are:
        raise SpecError(
            f"process {mine + 1} has no GPU: this machine has {there_are}; start at most {there_are} processes"
        )
    return torch.device("cuda", mine)


def here(name: str | None) -> torch.device:
    """As `choose`, but the CPU where what is asked for is not here: an attempt that trains no more needs none."""
    try:
        return choose(name)
    except SpecError:
        return torch.device("cpu")


def title(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """All random numbers (torch's, numpy's, Python's) from this seed, deterministic kernels where there are some.

    The process's own state is put back.

    A CUDA kernel without a deterministic form only warns once: which ones these are is up to the recipe's module.
    """
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault(WORKSPACE, ":4096:8")
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # it takes no other
        random.seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
            torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warning)


class Precision:
    """Mixed precision on CUDA: bfloat16 where the GPU has it, else float16 with a loss scaler. Plain float32 on CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        is_cuda = device.type == "cuda"
        self._dtype = torch.bfloat16 if is_cuda and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(enabled=is_cuda and self._dtype is torch.float16)

    def forward(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, self._dtype, enabled=self._device.type == "cuda")

    def backward(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.scaler.step(optimizer)
        self.scaler.update()

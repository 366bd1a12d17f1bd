"""The GPU figures of an artifact, measured by the training job on the GPU that it sits on, before it gives it back.

They are what `steelyard advise` and the cost page compare CPUs with. A benchmark that fails costs figures, never the training.
Never run on a GPU yet. Called by `trainers.course`.
"""

import logging

import msgspec
import torch

from gateway.contract.manifest import GpuFigure
from trainers.errors import TrainerError
from trainers.gpubench import measuring
from trainers.gpubench.measuring import BUDGET_S
from trainers.gpubench.runners import runners
from trainers.job import Data, Report
from trainers.runs import nvml

log = logging.getLogger(__name__)


class Benchmark(msgspec.Struct, frozen=True):
    """The stage's file."""

    figures: tuple[GpuFigure, ...]
    problem: str = ""
    schema_version: int = 1


def measured(
    module: torch.nn.Module,
    graph: bytes,
    data: Data,
    device: torch.device,
    report: Report,
    *,
    budget_s: float = BUDGET_S,
) -> Benchmark:
    """On this device. `problem` says why there are no figures, in one line."""
    is_cuda = device.type == "cuda"
    title = torch.cuda.get_device_name(device) if is_cuda else device.type
    counters = nvml.of_gpu(str(torch.cuda.get_device_properties(device).uuid)) if is_cuda else None
    try:
        found = measuring.figures(
            measuring.short_name(title),
            runners(module, graph, data, device),
            energy_nj=counters.total_nj if counters else lambda: None,
            budget_s=budget_s,
            told=lambda done, total: report("benchmark", done, total, title),
        )
    except TrainerError:  # asked to stop, by the report
        raise
    except (
        Exception
    ) as error:  # a driver, a kernel without a half form, a build that lacks one: the artifact is done without
        log.warning("the benchmark on %s failed and is left out: %s", title, error)
        return Benchmark((), f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200])
    report("benchmark", 1, 1, title)
    return Benchmark(found)

"""The GPU benchmark's arithmetic, on a clock and on a CPU device, and NVML's reader against a library object in its place.

No GPU was to be had: what needs one is skipped, loudly, and says so.
"""

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec
from gateway.contract.manifest import GpuFigure, Manifest
from gateway.contract.runs import AttemptEnd, AttemptRecord, Progress
from tests.support import tinyjob, trainingruns
from trainers.course import Course, read_benchmark, read_history
from trainers.errors import Preempted
from trainers.export.exporting import export
from trainers.fit.keeping import Unkept
from trainers.fit.world import World
from trainers.gpubench import benchmarking, measuring
from trainers.gpubench.benchmarking import Benchmark
from trainers.gpubench.measuring import RUNS_MIN, TooLarge, figures, short_name
from trainers.gpubench.runners import GraphRunner, TorchRunner, runners
from trainers.job import Data
from trainers.lineage import Origin, lineage
from trainers.runs import nvml, settle
from trainers.runs.nvml import NJ_PER_MJ, Used
from trainers.runs.progress import Tracker

MS = 10**6


class Bench:
    """A device on a clock of its own: a run takes `base + rows x row`, and draws so many watts meanwhile."""

    datatype = "fp32"
    runtime = "clockwork 1"

    def __init__(
        self, *, base_ns: int = 2 * MS, row_ns: int = MS // 10, watts: int = 50, rows_max: int = 10**9
    ) -> None:
        self.now_ns = 0
        self.energy_nj = 0
        self.runs: list[int] = []
        self._base_ns, self._row_ns, self._watts, self._rows_max = base_ns, row_ns, watts, rows_max

    def run(self, rows: int) -> None:
        if rows > self._rows_max:
            raise TooLarge("it has no such memory")
        took_ns = self._base_ns + rows * self._row_ns
        self.now_ns += took_ns
        self.energy_nj += took_ns * self._watts
        self.runs.append(rows)

    def measured(self, **asked: object) -> tuple[GpuFigure, ...]:
        return figures("T4", [self], energy_nj=lambda: self.energy_nj, clock_ns=lambda: self.now_ns, **asked)  # type: ignore[arg-type,list-item]


# Arithmetic


def test_rows_p99_and_energy_by_hand():
    found = Bench().measured(batches=(1, 8), budget_s=2)
    assert [one.batch_rows for one in found] == [1, 8]
    alone, eight = found
    assert alone.rows_per_s == pytest.approx(1e9 / (2.1 * MS))
    assert eight.rows_per_s == pytest.approx(8e9 / (2.8 * MS))
    assert (alone.p99_ns, eight.p99_ns) == (2_100_000, 2_800_000)
    assert (alone.energy_nj, eight.energy_nj) == (50 * 2_100_000, 50 * 2_800_000 // 8)
    assert alone.runtime == "clockwork 1"


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 60), st.integers(MS, 500 * MS), st.integers(0, 20 * MS))
def test_the_budget_is_kept_give_or_take_the_fewest_runs(budget_s: float, base_ns: int, row_ns: int):
    bench = Bench(base_ns=base_ns, row_ns=row_ns)
    found = bench.measured(budget_s=budget_s)
    longest_ns = base_ns + 128 * row_ns
    assert bench.now_ns <= budget_s * 1e9 + (RUNS_MIN + 2) * longest_ns * len(measuring.BATCHES)
    assert all(one.runs >= RUNS_MIN for one in found)
    assert found


def test_a_slow_device_leaves_out_what_there_is_no_time_for():
    found = Bench(base_ns=5 * 10**9).measured(budget_s=60)
    assert [one.batch_rows for one in found] == [1, 8]  # seven runs of five seconds each


def test_a_batch_that_does_not_fit_costs_no_other():
    found = Bench(rows_max=8).measured(budget_s=1)
    assert [one.batch_rows for one in found] == [1, 8]


def test_a_counter_that_does_not_move_or_is_none_tells_no_energy():
    still, none = Bench(watts=0), Bench()
    assert {one.energy_nj for one in still.measured(budget_s=1)} == {None}
    found = figures("T4", [none], clock_ns=lambda: none.now_ns, budget_s=1)  # type: ignore[list-item]
    assert {one.energy_nj for one in found} == {None}


def test_p99_is_that_of_the_runs():
    rng = random.Random(1)
    now_ns = [0]

    class Uneven(Bench):
        def run(self, rows: int) -> None:
            now_ns[0] += MS if rng.random() < 0.95 else 9 * MS

    [one] = figures("T4", [Uneven()], batches=(1,), budget_s=5, clock_ns=lambda: now_ns[0])  # type: ignore[list-item]
    assert one.p99_ns == 9 * MS
    assert one.runs > 100


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("NVIDIA A10G", "A10G"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("cpu", "cpu"),
    ],
)
def test_names_are_those_of_the_offers(title: str, name: str):
    assert short_name(title) == name


# On a CPU device


@pytest.fixture(scope="module")
def tiny() -> tuple[torch.nn.Module, Data, bytes]:
    job, data = tinyjob.tiny_job(), tinyjob.tiny_data()
    torch.manual_seed(0)
    module = job.module(data).eval()
    return module, data, export(module, data, job.objective)


def test_module_and_graph_run_on_a_cpu_device(tiny: tuple[torch.nn.Module, Data, bytes]):
    module, data, graph = tiny
    cpu = torch.device("cpu")
    every = [*runners(module, graph, data, cpu), GraphRunner(graph, data.test.inputs, ["CPUExecutionProvider"])]
    found = figures("cpu", every, batches=(1, 32), budget_s=0.6)
    kinds = ("fp32", "fp16", "fp32")
    assert [(one.datatype, one.batch_rows) for one in found] == [(kind, rows) for kind in kinds for rows in (1, 32)]
    assert [one.runtime.split(" ")[0] for one in found] == ["torch"] * 4 + ["onnxruntime"] * 2
    assert all(one.rows_per_s > 0 and one.p99_ns > 0 for one in found)


def test_the_half_is_a_copy_and_the_module_stays_whole(tiny: tuple[torch.nn.Module, Data, bytes]):
    module, data, _ = tiny
    before = {name: value.clone() for name, value in module.state_dict().items()}
    TorchRunner(module, data, torch.device("cpu"), "fp16").run(8)
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_a_benchmark_is_stored_and_read_as_it_was(tiny: tuple[torch.nn.Module, Data, bytes]):
    told: list[tuple[int, int]] = []
    made = benchmarking.measured(
        *tiny_in_order(tiny),
        torch.device("cpu"),
        lambda _, done, total, note="": told.append((done, total)),
        budget_s=0.4,
    )
    assert codec.decode(codec.encode(made), Benchmark) == made
    assert len(made.figures) == 8
    assert told[0] == (0, 8)
    assert told[-1] == (1, 1)


def test_a_failing_benchmark_is_said_and_costs_figures_only(
    tiny: tuple[torch.nn.Module, Data, bytes], caplog: pytest.LogCaptureFixture
):
    class Broken(torch.nn.Module):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no kernel image is available\nfor this device")

    _, data, graph = tiny
    made = benchmarking.measured(Broken(), graph, data, torch.device("cpu"), lambda *_: None, budget_s=1)
    assert (made.figures, made.problem) == ((), "RuntimeError: no kernel image is available")
    assert "left out" in caplog.text


def test_who_is_asked_to_stop_stops(tiny: tuple[torch.nn.Module, Data, bytes]):
    def asked(*_: object) -> None:
        raise Preempted("SIGTERM")

    with pytest.raises(Preempted):
        benchmarking.measured(*tiny_in_order(tiny), torch.device("cpu"), asked, budget_s=1)


def tiny_in_order(tiny: tuple[torch.nn.Module, Data, bytes]) -> tuple[torch.nn.Module, bytes, Data]:
    module, data, graph = tiny
    return module, graph, data


# NVML


class Library:
    """What of pynvml is asked. Stands in for it: there is no GPU whose counter could be read here."""

    class NVMLError(Exception):
        pass

    def __init__(self, *millijoules: int, refuses: str = "") -> None:
        self.millijoules = list(millijoules)
        self.refuses = refuses
        self.asked: list[object] = []

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("init")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        self.asked.append(uuid)
        self._answer("uuid")
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        self._answer("energy")
        return self.millijoules[handle]

    def _answer(self, what: str) -> None:
        if self.refuses == what:
            raise self.NVMLError("not supported")


def test_energy_is_that_of_all_gpus_since_the_beginning():
    library = Library(1_000, 5_000)
    used = Used(nvml.of_machine(library))
    library.millijoules = [1_250, 5_001]
    assert used() == 251 * NJ_PER_MJ


@pytest.mark.parametrize("library", [Library(), Library(5, refuses="init"), Library(5, refuses="energy")])
def test_no_gpu_no_driver_and_no_counter_tell_nothing(library: Library):
    assert nvml.of_machine(library) is None
    assert Used(None)() is None


def test_a_counter_that_fails_or_begins_anew_is_not_believed_again():
    library = Library(500)
    used = Used(nvml.of_machine(library))
    library.millijoules = [100]
    assert used() is None
    library.millijoules = [900]
    assert used() is None
    failing = Library(500)
    half = Used(nvml.of_machine(failing))
    failing.refuses = "energy"
    assert half() is None
    failing.refuses = ""
    assert half() is None


def test_cudas_gpu_is_found_by_its_uuid():
    library = Library(7)
    assert nvml.of_gpu("1234-ab", library) is not None
    assert nvml.of_gpu("GPU-1234-ab", library) is not None
    assert library.asked == ["GPU-1234-ab"] * 2
    assert nvml.of_gpu("x", Library(7, refuses="uuid")) is None


def test_without_the_package_nothing_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert nvml.of_machine() is None


def test_progress_carries_the_energy_of_the_attempt():
    library = Library(0)
    tracker = Tracker(energy_nj=Used(nvml.of_machine(library)))
    library.millijoules = [42]
    assert tracker.now().progress.energy_nj == 42 * NJ_PER_MJ
    assert b"energy" not in codec_of(Tracker())


def codec_of(tracker: Tracker) -> bytes:
    import msgspec

    return msgspec.json.encode(tracker.now().progress)


# On a GPU


def test_benchmark_on_a_gpu(tiny: tuple[torch.nn.Module, Data, bytes]):
    if not torch.cuda.is_available():
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("NOT RUN: no CUDA GPU here, the benchmark has never run on one", stacklevel=1)
        pytest.skip("NOT RUN: no CUDA GPU here, the benchmark has never run on one")
    made = benchmarking.measured(*tiny_in_order(tiny), torch.device("cuda", 0), lambda *_: None, budget_s=10)
    assert made.problem == ""
    assert {one.batch_rows for one in made.figures} == set(measuring.BATCHES)
    assert np.isfinite([one.rows_per_s for one in made.figures]).all()


@pytest.mark.e2e
def test_stages_carry_the_figures_into_the_manifest(tmp_path: Path):
    """On a CPU device: only a run on CUDA has this stage."""
    job, data = tinyjob.tiny_job(), tinyjob.tiny_data()
    course = Course(job, data, lambda *_: None)
    fitted, graph, offered, bench, done = (
        tmp_path / name for name in ("fit", "export", "quantize", "benchmark", "evaluate")
    )
    for folder in (fitted, graph, offered, bench, done):
        folder.mkdir()
    course.fit(fitted, Unkept(), World(), "cpu")
    course.export(graph, fitted)
    course.quantize(offered, graph)
    course.benchmark(bench, fitted, graph, torch.device("cpu"), budget_s=0.4)
    found = read_benchmark(bench).figures
    origin = Origin("r", "tiny", "cpu", "0" * 64, 1, (), "proven", "0" * 64, 0)
    history = read_history(fitted)
    told = lineage(job, data.sources, origin)
    course.evaluate(done, offered, history, told, lambda: settle.training_cost([attempted()]), found)
    manifest = codec.decode((done / "manifest.json").read_bytes(), Manifest)
    assert manifest.gpu == found
    assert len(found) == 8
    assert manifest.training_cost.energy_nj == 7


def attempted() -> tuple[AttemptRecord, AttemptEnd]:
    record = trainingruns.attempt()
    ended = settle.end(
        record,
        settle.Earlier(),
        Progress(energy_nj=7),
        outcome="done",
        exit_code=0,
        message="",
        ended_ns=1,
        elapsed_ns=1,
    )
    return record, ended

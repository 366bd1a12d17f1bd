"""The stages of a run, each from files to files: fit, export, quantize, evaluate. What a stage wrote the next one reads.

So an attempt can begin at the first stage that an earlier one did not finish: `trainers.run` asks `trainers.runs.stages`, which
finds a stage's files by the digest of everything that they depend on. No stage knows the store.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import torch
from safetensors.torch import load_file, save_file

from gateway.contract import codec, prices
from gateway.contract.checkpoint import BitExact
from gateway.contract.features import PROFILE_FILE
from gateway.contract.manifest import GpuFigure, Lineage, Role, TrainingCost
from trainers import artifact, comparison, plots, search
from trainers.arrays import Array
from trainers.artifact import Described
from trainers.drift.profile import profile
from trainers.evaluate.vectors import vectors
from trainers.export.exporting import export
from trainers.fit import device as places
from trainers.fit.keeping import Keeping
from trainers.fit.loop import Epoch, Fitted, fit
from trainers.fit.world import World
from trainers.gpubench.benchmarking import Benchmark, measured
from trainers.gpubench.measuring import BUDGET_S
from trainers.job import Data, Report, TrainJob
from trainers.promotion import evaluation
from trainers.quantize import candidates
from trainers.quantize.candidates import Offer

T = TypeVar("T")

WEIGHTS, HISTORY = "weights.safetensors", "history.json"
GRAPH = "graph.onnx"
CANDIDATES = "candidates.json"
BENCHMARK = "benchmark.json"


class History(msgspec.Struct, frozen=True):
    """What is left of a training besides its weights."""

    epochs: tuple[Epoch, ...]
    best: int
    device: str
    seconds: float
    is_cut_short: bool
    resumed_at: tuple[int, ...] = ()
    bit_exact: BitExact = "proven"
    schema_version: int = 1


class Course(msgspec.Struct, frozen=True):
    """One job on its data. Every method blocks; `folder` is for the stage's files, in `made` the stage before left its own."""

    job: TrainJob
    data: Data
    report: Report

    def fit(self, folder: Path, keeping: Keeping, world: World, device: str | None) -> None:
        fitted = fit(self.job, self.data, self.report, device, keeping=keeping, world=world)
        # Copies: safetensors refuses tensors that share memory, as those of tied layers do.
        weights = {name: value.contiguous().clone() for name, value in fitted.module.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        history = History(
            epochs=fitted.history,
            best=fitted.best,
            device=fitted.device,
            seconds=fitted.seconds,
            is_cut_short=fitted.is_cut_short,
            resumed_at=fitted.resumed_at,
            bit_exact=keeping.bit_exact,
        )
        (folder / HISTORY).write_bytes(codec.encode(history))

    def export(self, folder: Path, made: Path) -> None:
        fitted = self.fitted(made)
        step(self.report, "export", lambda: (folder / GRAPH).write_bytes(self._graph(fitted)))

    def quantize(self, folder: Path, made: Path) -> None:
        graph = (made / GRAPH).read_bytes()
        target = self.job.target
        offered = step(
            self.report,
            "quantize",
            lambda: candidates.offer(graph, self._calibration(), max_batch=target.batch_max),
        )
        (folder / GRAPH).write_bytes(graph)  # what a candidate that fails its gates is rescued from
        write_offer(folder, offered)

    def benchmark(
        self, folder: Path, made: Path, graph: Path, device: torch.device, budget_s: float = BUDGET_S
    ) -> None:
        """How fast what was exported is on the GPU that is here; `made` is what `fit` left, `graph` what `export` did."""
        module, exported = self.fitted(made).module, (graph / GRAPH).read_bytes()
        found = measured(module, exported, self.data, device, self.report, budget_s=budget_s)
        (folder / BENCHMARK).write_bytes(codec.encode(found))

    def evaluate(
        self,
        folder: Path,
        made: Path,
        history: History,
        lineage: Lineage,
        cost: Callable[[], TrainingCost],
        gpu: tuple[GpuFigure, ...] = (),
    ) -> None:
        """The finished artifact. What it cost is asked at the end: judging is a part of it."""
        job, data = self.job, self.data
        graph = (made / GRAPH).read_bytes()
        found = search.judged(read_offer(made), graph, self._calibration(), data, job.terms, self.report, prices.load())
        offered, verdict = found.candidates, found.verdict
        compared = step(self.report, "baseline", lambda: comparison.compare(job, data, verdict))
        described = self._described(history, found, compared)
        golden = vectors(offered, verdict.variants, data, job.terms)
        finished = artifact.assemble(
            described,
            offered,
            verdict,
            golden,
            evaluations=compared.evaluations,
            lineage=lineage,
            cost=cost(),
            gpu=gpu,
        )
        finished.write(folder)

    def _described(self, history: History, found: search.Found, compared: comparison.Compared) -> Described:
        job, data, verdict = self.job, self.data, found.verdict
        is_binary = job.objective.head == "sigmoid"
        features = profile(
            data.signature,
            data.train.inputs,
            verdict.answers[verdict.serve],
            compared.targets if is_binary else None,
        )
        profiled: dict[str, tuple[Role, bytes]] = {PROFILE_FILE: ("profile", codec.encode(features))}
        return Described(
            model=job.model,
            task=job.objective.task,
            description=job.description,
            split=data.split,
            signature=data.signature,
            examples=data.examples,
            labels=data.labels,
            text=data.text,
            files=dict(data.files) | (profiled if features.columns else {}) | self._evaluation_rows(),
            plots=plots.plots(job.objective, history.epochs, compared.targets, compared.answers, data.labels),
            skipped=found.skipped,
        )

    def fitted(self, made: Path) -> Fitted:
        """The module as `fit` left it."""
        history = read_history(made)
        with places.seeded(self.job.fit.seed, torch.device("cpu")):
            module = self.job.module(self.data)
        module.load_state_dict(load_file(made / WEIGHTS))
        return Fitted(
            module.eval(), history.epochs, history.best, history.device, history.seconds, history.is_cut_short
        )

    def _evaluation_rows(self) -> dict[str, tuple[Role, bytes]]:
        """For later challengers to be judged on, unless the job's rules keep them here."""
        rows_max = self.job.promotion.frozen_rows_max
        if not rows_max:
            return {}
        return {evaluation.FILE: ("evaluation", evaluation.pack(evaluation.freeze(self.data, rows_max)))}

    def _graph(self, fitted: Fitted) -> bytes:
        return export(fitted.module, self.data, self.job.objective, self.job.lengths)

    def _calibration(self) -> Mapping[str, Array]:
        return self.job.calibration(self.data) if self.job.calibration else self.data.validation.inputs


def read_history(made: Path) -> History:
    return codec.decode((made / HISTORY).read_bytes(), History)


def read_benchmark(made: Path) -> Benchmark:
    return codec.decode((made / BENCHMARK).read_bytes(), Benchmark)


def write_offer(folder: Path, offer: Offer) -> None:
    """Each graph in a file of its own."""
    for candidate in offer.candidates:
        (folder / f"{candidate.id}.onnx").write_bytes(candidate.graph)
    bare = tuple(msgspec.structs.replace(candidate, graph=b"") for candidate in offer.candidates)
    (folder / CANDIDATES).write_bytes(msgspec.json.encode(Offer(bare, offer.skipped)))


def read_offer(made: Path) -> Offer:
    bare = msgspec.json.decode((made / CANDIDATES).read_bytes(), type=Offer)
    complete = tuple(
        msgspec.structs.replace(candidate, graph=(made / f"{candidate.id}.onnx").read_bytes())
        for candidate in bare.candidates
    )
    return Offer(complete, bare.skipped)


def step(report: Report, name: str, work: Callable[[], T]) -> T:
    """Work that cannot tell how far it is."""
    report(name, 0, 1)
    done = work()
    report(name, 1, 1)
    return done

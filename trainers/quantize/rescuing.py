"""What to try when no int8 candidate passes its gates: other calibrators, then fewer quantized nodes. Called by `trainers.run`.

The gate comes in as a function; nothing here knows what it asks. Costs minutes on a large graph, hence its bounds.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort

from trainers.arrays import Array
from trainers.job import Candidate
from trainers.quantize import calibration, preprocess, recipes, selective, static
from trainers.quantize.candidates import Offer, Plan, Skipped, attempt, optimize

SAMPLES = 60
"""Rows that tell how far one quantized node moves the answers."""


def rescue(
    graph: bytes,
    rows: Mapping[str, Array],
    failing: Candidate,
    passes: Callable[[Candidate], bool],
    *,
    trials_max: int = selective.TRIALS_MAX,
    seconds_max: float = selective.SECONDS_MAX,
) -> Offer:
    """A candidate that passes, made from `failing`, or none and what was tried. `graph` is the exported one."""
    tried: list[Skipped] = []
    with tempfile.TemporaryDirectory() as folder:
        source = recipes.Source(preprocess.prepared(graph), rows, Path(folder))
        for plan in _calibrated(failing):
            made = attempt(plan, source)
            if isinstance(made, Candidate) and passes(made):
                return Offer((made,), tuple(tried))
            reason = "fails its gates, too" if isinstance(made, Candidate) else made.reason
            tried.append(Skipped(plan.id, reason))
        found = _selected(source, failing, passes, trials_max, seconds_max)
    if isinstance(found, Candidate):
        return Offer((found,), tuple(tried))
    return Offer((), (*tried, found))


def _calibrated(failing: Candidate) -> list[Plan]:
    if failing.recipe != "static_qdq":
        return []
    return [
        Plan(f"{failing.id}-{method.lower()}", failing.recipe, {**failing.recipe_args, "method": method})
        for method in static.METHODS
        if method != failing.recipe_args["method"]
    ]


def _selected(
    source: recipes.Source,
    failing: Candidate,
    passes: Callable[[Candidate], bool],
    trials_max: int,
    seconds_max: float,
) -> Candidate | Skipped:
    plan = Plan(f"{failing.id}-selective", failing.recipe, dict(failing.recipe_args))

    def build(excluded: frozenset[str]) -> bytes | None:
        return recipes.build(plan.recipe, source, plan.args, excluded)

    def is_enough(graph: bytes) -> bool:
        finished = optimize(graph, plan.id)
        return passes(msgspec.structs.replace(failing, id=plan.id, graph=finished))

    found = selective.rescue(
        build,
        recipes.names(failing.recipe, source),
        distance=_Distance(source),
        passes=is_enough,
        trials_max=trials_max,
        seconds_max=seconds_max,
    )
    if found is None:
        return Skipped(plan.id, "no choice of nodes passed within the trials and seconds allowed")
    made = attempt(plan, source, found.excluded)
    if isinstance(made, Skipped):
        return made
    args = {**made.recipe_args, "fp32_nodes": ", ".join(found.excluded)}
    notes = "; ".join(
        filter(None, [made.notes, f"{len(found.excluded)} nodes stay fp32, found in {found.trials} trials"])
    )
    return msgspec.structs.replace(made, recipe_args=args, notes=notes)


class _Distance:
    """How far a graph's answers are from the unquantized ones on the same rows: root mean square, in units of their spread."""

    def __init__(self, source: recipes.Source) -> None:
        self._feed = calibration.batches(source.rows, rows_max=SAMPLES, one_shape=True)[0]
        self._exact = self._answers(source.graph)

    def __call__(self, graph: bytes) -> float:
        worst = 0.0
        for exact, own in zip(self._exact, self._answers(graph), strict=True):
            if np.issubdtype(exact.dtype, np.floating):
                error = float(np.sqrt(np.mean(np.square(own - exact))))
                worst = max(worst, error / max(float(exact.std()), 1e-12) if np.isfinite(error) else np.inf)
        return worst

    def _answers(self, graph: bytes) -> list[Array]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        return list(ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(None, self._feed))

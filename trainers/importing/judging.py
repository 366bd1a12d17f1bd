"""Judges an imported graph by its rows: with real ones the whole search for quantized candidates, with drawn ones its costs only.

Which candidates there are and which one wins is `trainers.search`'s to find.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from gateway.contract.manifest import Cell, Evaluation, Examples, Scalar, Signature
from gateway.contract.prices import PriceBook
from trainers import confidence, objectives, search
from trainers.arrays import Array
from trainers.errors import DataError, ModelInvalid, SpecError
from trainers.evaluate.fidelity import BATCH_DIFFERENCE
from trainers.evaluate.judge import Verdict
from trainers.importing import proving
from trainers.importing.declaring import Declared
from trainers.importing.samples import Samples
from trainers.job import Candidate, Data, Limits, Report, Split, Target, Terms
from trainers.objectives import Head, Objective, Task
from trainers.quantize import candidates
from trainers.quantize.candidates import Offer, Skipped
from trainers.search import Found

EXAMPLES_MAX = 8
EXAMPLE_VALUES_MAX = 4096
"""In a row: an image of a hundred thousand numbers as JSON is no example that anybody reads."""

UNJUDGED = (
    "NO quantized candidate was offered, and nothing says how good this model is: without real rows there is nothing to judge by. "
    "Import it again with --golden."
)

LONE = (
    "Its answers change by up to {apart:.2g} with the rows in the same batch, so NO request shares a batch with another, which "
    "costs more. An int8 graph with DynamicQuantizeLinear does this: import the float graph instead, it is quantized by row here."
)


class Judged(msgspec.Struct, frozen=True):
    """`evaluations` is empty where no targets were given."""

    found: Found
    data: Data
    terms: Terms
    evaluations: tuple[Evaluation, ...]


def judge(
    declared: Declared,
    rows: Samples,
    task: Task,
    target: Target,
    labels: Sequence[str],
    book: PriceBook,
    report: Report,
) -> Judged:
    """Raises `GateFailed` when the file's own graph must not be served, `DataError` for targets that do not fit it."""
    objective = _objective(declared, rows, task)
    terms = Terms(objective, Limits(lone_reference=True), target)
    data = _data(declared.signature, rows, labels)
    _require_judgeable(objective, data)
    found = _searched(declared.graph, rows, data, terms, report, book)
    choice = " ".join([found.verdict.choice, *_warnings(found.verdict, rows)])
    found = msgspec.structs.replace(found, verdict=msgspec.structs.replace(found.verdict, choice=choice))
    return Judged(found, data, terms, _evaluations(objective, data, found.verdict))


def _warnings(verdict: Verdict, rows: Samples) -> list[str]:
    """What a person has to know who relies on this model."""
    served = next(variant for variant in verdict.variants if variant.id == verdict.serve)
    found = [] if rows.is_real else [UNJUDGED]
    if not served.batch_invariant:
        apart = max(
            gate.measured for gate in verdict.gates if gate.variant == served.id and gate.name == BATCH_DIFFERENCE
        )
        found.append(LONE.format(apart=apart))
    return found


def _searched(graph: bytes, rows: Samples, data: Data, terms: Terms, report: Report, book: PriceBook) -> Found:
    calibration = data.validation.inputs
    if rows.is_real:
        report("quantize", 0, 1)
        offer = candidates.offer(graph, calibration, max_batch=terms.target.batch_max)
        report("quantize", 1, 1)
    else:
        optimized = candidates.optimize(graph, candidates.REFERENCE)
        reference = Candidate(candidates.REFERENCE, candidates.REFERENCE, optimized, candidates.optimized_by(optimized))
        offer = Offer((reference,), (Skipped("int8", "there are no real rows to judge a quantized graph by"),))
    return search.judged(offer, graph, calibration, data, terms, report, book)


def _require_judgeable(objective: Objective, data: Data) -> None:
    """Before the search and not after."""
    try:
        objective.check("judging", data.test.targets)
    except DataError as error:
        raise DataError(f"golden file, second half: {error}; shuffle its rows") from error


def _objective(declared: Declared, rows: Samples, task: Task) -> Objective:
    """With targets the metrics of the task; without them variants are only compared with each other."""
    outputs = declared.signature.outputs
    answers = proving.answers(declared, rows)
    if rows.targets is None:
        return objectives.untargeted(task, _head(answers) if task == "classify" else "identity")
    if task not in {"classify", "regress"}:
        raise SpecError(f"--task {task} has no metrics for the golden file's targets; --task classify or regress has")
    if len(outputs) != 1 or not outputs[0].datatype.startswith("FP"):
        names = ", ".join(f"{tensor.name} ({tensor.datatype})" for tensor in outputs)
        raise SpecError(
            f"targets are compared with one output of floats, and there are: {names}; keep it with --outputs"
        )
    answer = objectives.flat(answers[outputs[0].name])
    if task == "regress":
        if answer.ndim != 1:
            raise SpecError(
                f"--task regress needs one number per row; '{outputs[0].name}' has {list(answer.shape[1:])}"
            )
        return objectives.regression()
    if _head(answers) == "identity":
        raise ModelInvalid(
            f"output '{outputs[0].name}' is no probability: values are outside [0, 1]; end the graph with Softmax or Sigmoid"
        )
    if answer.ndim > 2:
        raise SpecError(
            f"--task classify needs one probability per class; '{outputs[0].name}' has {list(answer.shape)}"
        )
    return objectives.binary() if answer.ndim == 1 else objectives.multiclass(answer.shape[1])


def _head(answers: dict[str, Array]) -> Head:
    floats = [objectives.flat(values) for values in answers.values() if values.dtype.kind == "f"]
    if not floats or not all(((values >= 0) & (values <= 1)).all() for values in floats):
        return "identity"
    return "softmax" if any(values.ndim > 1 for values in floats) else "sigmoid"


def _data(signature: Signature, rows: Samples, labels: Sequence[str]) -> Data:
    """The first half calibrates, the second one judges; drawn rows do nothing but run."""
    targets = np.zeros(rows.rows) if rows.targets is None else rows.targets
    whole = Split(rows.inputs, targets)
    half = rows.rows // 2
    first, second = (
        (whole.picked(np.arange(half)), whole.picked(np.arange(half, rows.rows))) if rows.is_real else (whole, whole)
    )
    return Data(
        train=first,
        validation=first,
        test=second,
        sources=(),
        examples=_examples(signature, second, has_targets=rows.targets is not None)
        if rows.is_real
        else Examples((), ()),
        signature=signature,
        labels=tuple(labels),
    )


def _examples(signature: Signature, split: Split, *, has_targets: bool) -> Examples:
    """Judged rows as a caller sends them."""
    picked = split.thinned(EXAMPLES_MAX)
    if sum(values[0].size for values in picked.inputs.values()) > EXAMPLE_VALUES_MAX:
        return Examples((), ())
    rows: list[dict[str, Cell]] = [{} for _ in range(picked.rows)]
    for tensor in signature.inputs:
        for row, values in zip(rows, picked.inputs[tensor.name].tolist(), strict=True):
            if tensor.columns:
                row.update({c.name: _sent(value) for c, value in zip(tensor.columns, values, strict=True)})
            else:
                row[tensor.name] = values
    outcomes: list[Scalar] = picked.targets.tolist() if has_targets else [None] * picked.rows
    return Examples(tuple(rows), tuple(outcomes))


def _sent(value: Scalar) -> Scalar:
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  # NaN is sent as null


def _evaluations(objective: Objective, data: Data, verdict: Verdict) -> tuple[Evaluation, ...]:
    """Every variant's metrics, the served one's with intervals."""
    if not objective.metrics:
        return ()
    rows = data.test.spread(0)
    (answers,) = verdict.answers[verdict.serve].values()
    # Against itself: there is no baseline to be better than, and the model's own intervals are what is left.
    sure = confidence.compare(objective, data.test.targets[rows], answers, answers)
    return tuple(
        msgspec.structs.replace(each, intervals=sure.own) if each.subject == verdict.serve else each
        for each in verdict.evaluations
    )

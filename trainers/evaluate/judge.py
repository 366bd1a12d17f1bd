"""Every candidate graph measured on the held-out split in the serving configuration, its gates, and which one to serve.

Changes no graph and stores nothing. Called by `trainers.run`; `fidelity` says how near to fp32 a candidate is, `timing` what it
costs, `choice` weighs the two.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort

from gateway.contract.manifest import Evaluation, Gate, Latency, Variant
from trainers.errors import GateFailed
from trainers.evaluate import choice, fidelity, resident, serving, timing
from trainers.job import Candidate, Data, Report, Split, Terms

REFERENCE = "fp32"
SPLIT = "test"


class Verdict(msgspec.Struct, frozen=True):
    """What the manifest says about the candidates. `variants` has the one to serve first."""

    variants: tuple[Variant, ...]
    evaluations: tuple[Evaluation, ...]
    gates: tuple[Gate, ...]
    serve: str
    choice: str
    answers: Mapping[str, fidelity.Outputs]
    """By variant, to the rows of the test split that were judged."""


def judge(candidates: Sequence[Candidate], data: Data, terms: Terms, report: Report) -> Verdict:
    """Measure all, gate all, choose one. Raises `GateFailed` when the reference itself gives NaN or depends on its batch."""
    split = data.test.thinned(terms.limits.rows_max)
    with tempfile.TemporaryDirectory() as folder:
        openers = {candidate.id: _opener(candidate, Path(folder), data) for candidate in candidates}
        sessions = {name: opens() for name, opens in openers.items()}
        answers = _answers(sessions, split, data, terms, report)
        gates = {name: fidelity.gates(name, answers[REFERENCE], own, terms) for name, own in answers.items()}
        _refuse_unsound_reference(gates[REFERENCE])
        latencies = timing.latencies(sessions, split.inputs, data.signature, terms.target.batches, report)
        loads = timing.load_times(openers)
    variants = tuple(
        _variant(
            candidate,
            answers[candidate.id],
            gates[candidate.id],
            latencies[candidate.id],
            load_ns=loads[candidate.id],
            resident_bytes=_resident_bytes(candidate, split, terms.target.batch_max),
            batch_max=terms.target.batch_max,
        )
        for candidate in candidates
    )
    sizes = {candidate.id: len(candidate.graph) for candidate in candidates}
    served, sentence = choice.choose(variants, sizes, gates, terms.target.mix)
    return Verdict(
        variants=tuple(sorted(variants, key=lambda variant: variant.id != served)),
        evaluations=tuple(
            Evaluation(subject=name, split=SPLIT, rows=split.rows, metrics=own.metrics) for name, own in answers.items()
        ),
        gates=tuple(gate for checked in gates.values() for gate in checked),
        serve=served,
        choice=sentence,
        answers={name: own.outputs for name, own in answers.items()},
    )


def _opener(candidate: Candidate, folder: Path, data: Data) -> Callable[[], ort.InferenceSession]:
    """Opens this candidate as the gateway will."""
    path = folder / f"{candidate.id}.onnx"
    path.write_bytes(candidate.graph)
    return lambda: serving.open_session(
        path, optimized_by=candidate.optimized_by, only_rows_vary=not data.signature.has_length
    )


def _resident_bytes(candidate: Candidate, split: Split, batch_max: int) -> int:
    """After runs of the largest batch; never less than the file, as weights are read from it whole."""
    largest = {name: np.resize(values, (batch_max, *values.shape[1:])) for name, values in split.inputs.items()}
    measured = resident.measure(candidate.graph, largest, optimized_by=candidate.optimized_by)
    return max(measured, len(candidate.graph))


def _answers(
    sessions: Mapping[str, ort.InferenceSession], split: Split, data: Data, terms: Terms, report: Report
) -> dict[str, fidelity.Answers]:
    answers = {}
    for done, (name, session) in enumerate(sessions.items()):
        report("compare", done, len(sessions), name)
        answers[name] = fidelity.answer(session, split, data, terms)
    report("compare", len(sessions), len(sessions))
    return answers


def _refuse_unsound_reference(gates: Sequence[Gate]) -> None:
    failed = [
        f"{gate.name} is {gate.measured:g}, at most {gate.limit:g} is allowed" for gate in gates if not gate.passed
    ]
    if failed:
        raise GateFailed(f"the fp32 graph must not be served: {'; '.join(failed)}")


def _variant(
    candidate: Candidate,
    answers: fidelity.Answers,
    gates: Sequence[Gate],
    latency: tuple[Latency, ...],
    *,
    load_ns: int,
    resident_bytes: int,
    batch_max: int,
) -> Variant:
    """A graph whose answers depend on batch mates may only ever run alone."""
    invariant = all(gate.passed for gate in gates if gate.name == fidelity.BATCH_DIFFERENCE)
    opsets = {opset.domain: opset.version for opset in onnx.load_from_string(candidate.graph).opset_import}
    return Variant(
        id=candidate.id,
        recipe=candidate.recipe,
        file=f"{candidate.id}.onnx",
        opset=opsets[""],
        max_batch=batch_max if invariant else 1,
        batch_invariant=invariant,
        metrics=answers.metrics,
        latency=latency,
        batch_cost=timing.fit_cost(latency),
        load_ns=load_ns,
        resident_bytes=resident_bytes,
        optimized_by=candidate.optimized_by,
    )

"""Every candidate graph measured on the held-out split in the serving configuration, its gates, and which one to serve.

Changes no graph and stores nothing. Called by `trainers.search`; `fidelity` says how near to fp32 a candidate is, `timing` what it
costs, `choice` weighs the two.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort

from gateway.contract.manifest import Evaluation, Gate, Tradeoff, Variant
from gateway.contract.prices import PriceBook
from trainers.errors import GateFailed
from trainers.evaluate import choice, coldload, fidelity, pricing, resident, serving, timing
from trainers.job import Candidate, Data, Report, Split, Terms

REFERENCE = "fp32"
SPLIT = "test"


class Verdict(msgspec.Struct, frozen=True):
    """What the manifest says about the candidates. `variants` has the one to serve first, then the next best.

    `rescuable` names a candidate that only its gates keep from being served in place of the one that is.
    """

    variants: tuple[Variant, ...]
    evaluations: tuple[Evaluation, ...]
    gates: tuple[Gate, ...]
    serve: str
    choice: str
    answers: Mapping[str, fidelity.Outputs]
    """By variant, to the rows of the test split that were judged."""
    rescuable: str | None = None


class Gates:
    """The gates of one reference on one split, for any number of candidates. Its own must pass, or `GateFailed` is raised."""

    def __init__(self, reference: Candidate, data: Data, terms: Terms) -> None:
        self._data, self._terms = data, terms
        self.split = data.test.thinned(terms.limits.rows_max)
        self.reference = self.answers(reference)
        _refuse_unsound_reference(self.of(reference, self.reference), may_vary=terms.limits.lone_reference)

    def answers(self, candidate: Candidate) -> fidelity.Answers:
        with tempfile.TemporaryDirectory() as folder:
            opening = _opening(candidate, Path(folder), self._data)
            return fidelity.answer(_open(opening), self.split, self._data, self._terms)

    def of(self, candidate: Candidate, answers: fidelity.Answers) -> tuple[Gate, ...]:
        """Fidelity's, and that a CPU which adds in 16 bits is kept from a graph it would get wrong."""
        found = fidelity.gates(candidate.id, self.reference, answers, self._terms, self.split.targets)
        if not candidate.saturated:
            return found
        needs = ", ".join(candidate.requires)
        saturation = Gate(
            name="saturation",
            variant=candidate.id,
            passed=bool(needs),
            measured=candidate.saturated,
            limit=0.0,
            detail=f"never on a CPU with {needs}, which the variant requires" if needs else "",
        )
        return (*found, saturation)

    def passes(self, candidate: Candidate) -> bool:
        return all(gate.passed for gate in self.of(candidate, self.answers(candidate)))


def judge(candidates: Sequence[Candidate], data: Data, terms: Terms, report: Report, book: PriceBook) -> Verdict:
    """Measure all, gate all, choose one; `candidates[0]` is the reference.

    Raises `GateFailed` when the reference itself gives NaN or depends on its batch, `SpecError` when `book` has no such platform.
    """
    asked = Gates(candidates[0], data, terms)
    answers = _answers(candidates, asked, report)
    gates = {candidate.id: asked.of(candidate, answers[candidate.id]) for candidate in candidates}
    with tempfile.TemporaryDirectory() as folder:
        openings = {candidate.id: _opening(candidate, Path(folder), data) for candidate in candidates}
        sessions = {name: _open(opening) for name, opening in openings.items()}
        timings = timing.measure(sessions, asked.split.inputs, data.signature, terms.target.mix, report)
        loads = coldload.measure(openings)
    variants = [
        _variant(
            candidate,
            answers[candidate.id],
            timings[candidate.id],
            terms,
            load_ns=loads[candidate.id],
            resident_bytes=_resident_bytes(candidate, asked.split, terms.target.batch_max),
            tradeoff=_tradeoff(candidate, timings[candidate.id], terms, book),
        )
        for candidate in candidates
    ]
    sizes = {candidate.id: len(candidate.graph) for candidate in candidates}
    chosen = choice.choose(variants, sizes, gates)
    return Verdict(
        variants=_in_order(variants, chosen),
        evaluations=tuple(
            Evaluation(subject=name, split=SPLIT, rows=asked.split.rows, metrics=own.metrics)
            for name, own in answers.items()
        ),
        gates=tuple(gate for checked in gates.values() for gate in checked),
        serve=chosen.order[0],
        choice=chosen.sentence,
        rescuable=choice.worth_rescuing(variants, sizes, gates, chosen.order[0]),
        answers={name: own.outputs for name, own in answers.items()},
    )


def _in_order(variants: Sequence[Variant], chosen: choice.Choice) -> tuple[Variant, ...]:
    by_id = {variant.id: variant for variant in variants}
    ordered = []
    for name in chosen.order:
        line = by_id[name].tradeoff
        assert isinstance(line, Tradeoff)
        marked = msgspec.structs.replace(line, is_pareto=name in chosen.front)
        ordered.append(msgspec.structs.replace(by_id[name], tradeoff=marked))
    return tuple(ordered)


def _opening(candidate: Candidate, folder: Path, data: Data) -> coldload.Opening:
    """How the gateway will open this candidate."""
    path = folder / f"{candidate.id}.onnx"
    path.write_bytes(candidate.graph)
    return coldload.Opening(str(path), candidate.optimized_by, only_rows_vary=not data.signature.has_length)


def _open(opening: coldload.Opening) -> ort.InferenceSession:
    return serving.open_session(
        Path(opening.path), optimized_by=opening.optimized_by, only_rows_vary=opening.only_rows_vary
    )


def _resident_bytes(candidate: Candidate, split: Split, batch_max: int) -> int:
    """After runs of the largest batch; never less than the file, as weights are read from it whole."""
    largest = {name: np.resize(values, (batch_max, *values.shape[1:])) for name, values in split.inputs.items()}
    measured = resident.measure(candidate.graph, largest, optimized_by=candidate.optimized_by)
    return max(measured, len(candidate.graph))


def _answers(candidates: Sequence[Candidate], asked: Gates, report: Report) -> Mapping[str, fidelity.Answers]:
    answers = {candidates[0].id: asked.reference}
    for done, candidate in enumerate(candidates[1:], start=1):
        report("compare", done, len(candidates), candidate.id)
        answers[candidate.id] = asked.answers(candidate)
    report("compare", len(candidates), len(candidates))
    return answers


def _refuse_unsound_reference(gates: Sequence[Gate], *, may_vary: bool) -> None:
    failed = [
        f"{gate.name} is {gate.measured:g}, at most {gate.limit:g} is allowed"
        for gate in gates
        if not gate.passed and not (may_vary and gate.name == fidelity.BATCH_DIFFERENCE)
    ]
    if failed:
        raise GateFailed(f"the fp32 graph must not be served: {'; '.join(failed)}")


def _tradeoff(candidate: Candidate, measured: timing.Timing, terms: Terms, book: PriceBook) -> Tradeoff:
    return Tradeoff(
        row_ns=measured.row_ns,
        row_cpu_ns=measured.row_cpu_ns,
        thousand_picousd=pricing.thousand_picousd(book, terms.target.platform, measured.row_cpu_ns),
        ratio=measured.ratio,
        is_noisy=measured.is_noisy,
        saturated=candidate.saturated,
        notes=candidate.notes,
    )


def _variant(
    candidate: Candidate,
    answers: fidelity.Answers,
    measured: timing.Timing,
    terms: Terms,
    *,
    load_ns: int,
    resident_bytes: int,
    tradeoff: Tradeoff,
) -> Variant:
    """A graph whose answers depend on batch mates may only ever run alone."""
    invariant = answers.batch_difference <= terms.limits.batch_difference_max
    opsets = {opset.domain: opset.version for opset in onnx.load_from_string(candidate.graph).opset_import}
    return Variant(
        id=candidate.id,
        recipe=candidate.recipe,
        file=f"{candidate.id}.onnx",
        opset=opsets[""],
        max_batch=terms.target.batch_max if invariant else 1,
        batch_invariant=invariant,
        requires=candidate.requires,
        recipe_args=dict(candidate.recipe_args),
        metrics=answers.metrics,
        latency=measured.latency,
        batch_cost=timing.fit_cost(measured.latency),
        load_ns=load_ns,
        resident_bytes=resident_bytes,
        optimized_by=candidate.optimized_by,
        tradeoff=tradeoff,
    )

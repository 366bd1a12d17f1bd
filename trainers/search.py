"""The quantization search: candidates offered, measured, judged, and one rescued where only its gates keep it from being served.

Called by `trainers.course`; what a candidate is, `trainers.quantize` knows, what it is worth, `trainers.evaluate`.
"""

from collections.abc import Collection, Mapping

import msgspec

from gateway.contract.prices import PriceBook
from trainers.arrays import Array
from trainers.evaluate import host, judge
from trainers.job import Candidate, Data, Report, Terms
from trainers.quantize import candidates as offering
from trainers.quantize import rescuing
from trainers.quantize.candidates import Offer

RESCUE_SECONDS_MAX = 300.0
"""A search that takes longer than this to save one candidate is better ended with another recipe."""


class Found(msgspec.Struct, frozen=True):
    """Every candidate that was measured, what was decided, and which recipes made none and why."""

    candidates: tuple[Candidate, ...]
    verdict: judge.Verdict
    skipped: Mapping[str, str]


def search(
    graph: bytes,
    calibration: Mapping[str, Array],
    data: Data,
    terms: Terms,
    report: Report,
    book: PriceBook,
    *,
    asked: Collection[str] = (),
) -> Found:
    """`graph` is the exported one. Raises `ExportError` or `GateFailed` when it is not fit to be served itself."""
    offer = offering.offer(graph, calibration, max_batch=terms.target.batch_max, asked=asked)
    return judged(offer, graph, calibration, data, terms, report, book)


def judged(
    offer: Offer,
    graph: bytes,
    calibration: Mapping[str, Array],
    data: Data,
    terms: Terms,
    report: Report,
    book: PriceBook,
) -> Found:
    """The second half of a search, on whatever machine: what that one cannot run is not measured, and so not published."""
    able = host.cpu_flags()
    measured = tuple(candidate for candidate in offer.candidates if set(candidate.requires) <= able)
    skipped = {skip.id: skip.reason for skip in offer.skipped}
    skipped |= {each.id: _lacks(each, able) for each in offer.candidates if each not in measured}
    verdict = judge.judge(measured, data, terms, report, book)
    failing = next((each for each in measured if each.id == verdict.rescuable), None)
    if failing is None:
        return Found(measured, verdict, skipped)
    report("rescue", 0, 1, failing.id)
    gates = judge.Gates(measured[0], data, terms)
    rescued = rescuing.rescue(graph, calibration, failing, gates.passes, seconds_max=RESCUE_SECONDS_MAX)
    report("rescue", 1, 1)
    skipped |= {skip.id: skip.reason for skip in rescued.skipped}
    if not rescued.candidates:
        return Found(measured, verdict, skipped)
    measured = (*measured, *rescued.candidates)
    return Found(measured, judge.judge(measured, data, terms, report, book), skipped)


def _lacks(candidate: Candidate, able: frozenset[str]) -> str:
    missing = ", ".join(flag for flag in candidate.requires if flag not in able)
    return f"requires {missing}, which this CPU lacks: it can only be measured on one that has it"

"""The origin charge of a container's life under its platform's rule: which time counts, in which steps, and how much at least.

Pure, integers only. What a moment owes is billed time so far, so any windows of a life add up to the life: a window's quantity is
the difference between two moments, and its charge the difference of two rounded bills (infra/decisions/0002). The running meter
asks for `beyond_ns` when a life ends; whoever checks a bill afterwards asks for `charges`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from gateway.accounting.tariff import Tariff
from gateway.contract.prices import Platform

MS = 10**6
Span = tuple[int, int]
"""From and to, nanoseconds since the epoch."""


class Life(msgspec.Struct, frozen=True):
    """What decides the bill. `answered` are the requests or invocations, each from its arrival to its answer, within the life."""

    boot_ns: int
    ready_ns: int
    ended_ns: int
    answered: tuple[Span, ...] = ()


def billed_ns(rule: Platform, life: Life, until_ns: int | None = None) -> int:
    """The time that the platform has billed by this moment, at the life's end without one.

    A stretch or an invocation counts when it is over, with the steps it is rounded up to; boot is Lambda's INIT and Cloud Run's
    start, and counts as one. Of a lifetime every nanosecond counts at once, and what the rule adds at its end.
    """
    until_ns = life.ended_ns if until_ns is None else min(until_ns, life.ended_ns)
    if rule.billed == "lifetime":
        age_ns = max(0, until_ns - life.boot_ns)
        return age_ns + (beyond_ns(rule, age_ns) if until_ns == life.ended_ns else 0)
    starting = (life.boot_ns, life.ready_ns)
    spans = [starting, *life.answered]
    counted = _merged(spans) if rule.billed == "requests" else spans
    return sum(_stepped(rule, to_ns - from_ns) for from_ns, to_ns in counted if to_ns <= until_ns)


def beyond_ns(rule: Platform, age_ns: int) -> int:
    """What is billed beyond the life itself, when it ends at this age: up to the next step, and to the minimum."""
    return _stepped(rule, age_ns) - age_ns


def charges(rule: Platform, life: Life, tariff: Tariff, boundaries: Sequence[int]) -> tuple[int, ...]:
    """Pico-dollars of one sku in each window that two boundaries (ascending) enclose; from boot to end they are the life."""
    bills = [tariff.billed_picousd(billed_ns(rule, life, at_ns)) for at_ns in boundaries]
    return tuple(after - before for before, after in pairwise(bills))


def request_picousd(
    rate_numerator: int, rate_denominator: int, life: Life, boundaries: Sequence[int]
) -> tuple[int, ...]:
    """Pico-dollars of the requests that ended in each window, at a rate per request; they telescope as `charges` do."""
    ended = [sum(1 for _, to_ns in life.answered if to_ns <= at_ns) for at_ns in boundaries]
    bills = [_half_even(count * rate_numerator, rate_denominator) for count in ended]
    return tuple(after - before for before, after in pairwise(bills))


def _stepped(rule: Platform, length_ns: int) -> int:
    step_ns = max(1, rule.granularity_ms * MS)
    return max(-(-length_ns // step_ns) * step_ns, rule.minimum_ms * MS)


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Stretches in which at least one span lasts: N requests at once are one stretch, never N times the box."""
    merged: list[Span] = []
    for from_ns, to_ns in sorted(spans):
        if merged and from_ns <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(to_ns, merged[-1][1]))
        else:
            merged.append((from_ns, to_ns))
    return merged


def _half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2))

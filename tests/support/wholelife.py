"""A container's origin charge, worked out afterwards from its whole life: a witness for the meter, which counts as it goes.

What a moment owes is billed time so far, so any windows of a life add up to the life: a window's charge is the difference of two
rounded bills (infra/decisions/0002). Deliberately not written with `gateway.accounting.billedtime`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from gateway.accounting.billing import beyond_ns, stepped_ns
from gateway.accounting.tariff import Tariff
from gateway.contract.prices import Platform

Span = tuple[int, int]
"""From and to, nanoseconds since the epoch."""


class Life(msgspec.Struct, frozen=True):
    """What decides the bill. `answered` are the requests or invocations, each from its arrival to its answer, within the life.

    `draining_ns` is when the container began to stop, 0 where that is not told apart.
    """

    boot_ns: int
    ready_ns: int
    ended_ns: int
    answered: tuple[Span, ...] = ()
    draining_ns: int = 0


def billed_ns(rule: Platform, life: Life, until_ns: int | None = None) -> int:
    """The time that the platform has billed by this moment, at the life's end without one.

    Every billed nanosecond counts at once, and what a step or a minimum adds when it is over. Boot is Lambda's INIT and Cloud Run's
    start, and counts as an invocation or a request does; so does Cloud Run's shutting down.
    """
    until_ns = life.ended_ns if until_ns is None else min(until_ns, life.ended_ns)
    if rule.billed == "lifetime":
        age_ns = max(0, until_ns - life.boot_ns)
        return age_ns + (beyond_ns(rule, age_ns) if until_ns == life.ended_ns else 0)
    spans = [(life.boot_ns, life.ready_ns), *life.answered]
    if rule.billed == "invocations":
        begun = [(from_ns, to_ns) for from_ns, to_ns in spans if from_ns < until_ns]
        return sum(stepped_ns(rule, to - at) if to <= until_ns else until_ns - at for at, to in begun)
    if life.draining_ns:
        spans.append((life.draining_ns, life.ended_ns))
    return _stretches_ns(rule, _merged(spans), until_ns)


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


def _stretches_ns(rule: Platform, stretches: Iterable[Span], until_ns: int) -> int:
    """A stretch that begins while the step before it is still being paid continues that one: no moment is billed twice."""
    over_ns = least_ns = began_ns = 0
    for from_ns, to_ns in stretches:
        if from_ns >= until_ns:
            break
        if from_ns > began_ns + least_ns:
            over_ns, began_ns, least_ns = over_ns + least_ns, from_ns, 0
        lasted_ns = min(to_ns, until_ns) - began_ns
        least_ns = max(least_ns, stepped_ns(rule, lasted_ns) if to_ns <= until_ns else lasted_ns)
    return over_ns + least_ns


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

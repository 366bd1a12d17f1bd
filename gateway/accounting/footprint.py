"""Energy and carbon split like money: by the same weights, with the same largest remainders, so that nothing is lost.

A container's footprint over a window has two parts (`gateway.contract.energy`): `working` goes to who used the CPU, by CPU
nanoseconds; `idle` like idle and resident money, by whatever weights the view of the report has. Reports call it.
"""

from collections.abc import Sequence

from gateway.accounting.split import apportion
from gateway.contract.energy import Footprint, Span


def share(total: Footprint, weights: Sequence[int]) -> tuple[Footprint, ...]:
    """One footprint per weight; each of their figures adds up to the total's. Raises `ValueError` as `split.apportion`."""
    energy, operational, embodied = (
        _spans(span, weights) for span in (total.energy_nj, total.operational_ng, total.embodied_ng)
    )
    return tuple(Footprint(*spans, tier=total.tier) for spans in zip(energy, operational, embodied, strict=True))


def _spans(span: Span, weights: Sequence[int]) -> list[Span]:
    ends = [apportion(amount, weights) for amount in (span.low, span.value, span.high)]
    return [Span(*parts) for parts in zip(*ends, strict=True)]

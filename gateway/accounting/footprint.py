"""Energy and carbon split like money: by the same weights, with the same largest remainders, so that nothing is lost.

A container's footprint over a window is what holding its vCPUs and its memory took, and what its work took beyond that. The first
goes to accounts by the weights their money went by, the second to who used the CPU, by CPU nanoseconds (`of_container`). Reports
call it, and `share` again when a view moves what nobody owns.
"""

from collections.abc import Sequence

import msgspec

from gateway.accounting.split import apportion
from gateway.contract import energy
from gateway.contract.energy import NOTHING, Coefficients, Footprint, ProcessorName, Span, Use


class Held(msgspec.Struct, frozen=True):
    """What a container held over a window: thousandths of a vCPU, and bytes, each times nanoseconds."""

    vcpu_milli_ns: int
    byte_ns: int


class Claim(msgspec.Struct, frozen=True):
    """An account's weights in the same units; `cpu_ns` of work known, `perhaps_cpu_ns` of time of which nobody knows if it was."""

    vcpu_milli_ns: int = 0
    byte_ns: int = 0
    cpu_ns: int = 0
    perhaps_cpu_ns: int = 0


def of_container(
    processor: ProcessorName, held: Held, claims: Sequence[Claim], coefficients: Coefficients
) -> tuple[Footprint, ...]:
    """One footprint per claim; together they are `whole` of the same. What nobody has a weight in is spread evenly.

    Raises `SettingsError` for a processor without coefficients, `ValueError` without any claim.
    """
    vcpus, memory, work, perhaps = _kinds(processor, held, claims, coefficients)
    parts = [
        _shared(vcpus, [claim.vcpu_milli_ns for claim in claims]),
        _shared(memory, [claim.byte_ns for claim in claims]),
        _shared(work, [claim.cpu_ns for claim in claims]),
        _shared(perhaps, [claim.perhaps_cpu_ns for claim in claims]),
    ]
    return tuple(_sum(of_one) for of_one in zip(*parts, strict=True))


def whole(processor: ProcessorName, held: Held, claims: Sequence[Claim], coefficients: Coefficients) -> Footprint:
    """The container's own, before it is split. Each kind of it is rounded once."""
    return _sum(_kinds(processor, held, claims, coefficients))


def share(total: Footprint, weights: Sequence[int]) -> tuple[Footprint, ...]:
    """One footprint per weight; each of their figures adds up to the total's. Raises `ValueError` as `split.apportion`."""
    energies, operational, embodied = (
        _spans(span, weights) for span in (total.energy_nj, total.operational_ng, total.embodied_ng)
    )
    return tuple(Footprint(*spans, tier=total.tier) for spans in zip(energies, operational, embodied, strict=True))


def _kinds(
    processor: ProcessorName, held: Held, claims: Sequence[Claim], coefficients: Coefficients
) -> tuple[Footprint, Footprint, Footprint, Footprint]:
    """Holding vCPUs, holding memory, working, and perhaps having worked: that one only widens the range upwards."""

    def use(vcpu_milli: int = 0, memory_bytes: int = 0, cpu_ns: int = 0) -> Use:
        # All is linear: so many thousandths of a vCPU for one nanosecond are the same.
        return Use(processor, vcpu_milli, memory_bytes, held_ns=1, cpu_ns=cpu_ns)

    unknown = energy.working(use(cpu_ns=sum(claim.perhaps_cpu_ns for claim in claims)), coefficients)
    return (
        energy.idle(use(vcpu_milli=held.vcpu_milli_ns), coefficients),
        energy.idle(use(memory_bytes=held.byte_ns), coefficients),
        energy.working(use(cpu_ns=sum(claim.cpu_ns for claim in claims)), coefficients),
        Footprint(
            energy_nj=Span(0, 0, unknown.energy_nj.high),
            operational_ng=Span(0, 0, unknown.operational_ng.high),
            embodied_ng=energy.ZERO,
            tier=unknown.tier,
        ),
    )


def _sum(parts: Sequence[Footprint]) -> Footprint:
    return sum(parts[1:], parts[0])


def _shared(total: Footprint, weights: Sequence[int]) -> tuple[Footprint, ...]:
    if not any(weights):
        if total.is_nothing:
            return (NOTHING,) * len(weights)
        weights = [1] * len(weights)
    return share(total, weights)


def _spans(span: Span, weights: Sequence[int]) -> list[Span]:
    if not span.high:
        return [energy.ZERO] * len(weights)
    ends = [apportion(amount, weights) for amount in (span.low, span.value, span.high)]
    return [Span(*parts) for parts in zip(*ends, strict=True)]

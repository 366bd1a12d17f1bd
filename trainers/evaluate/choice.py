"""Which variant to serve, and one honest sentence why. Pure: measurements in, decision out.

fp32 stays unless another variant passes all gates and is clearly cheaper per row, or much smaller and not dearer. Among several
such, the cheapest; where the difference is within the noise, the one that loads faster, then the smaller one.
"""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.contract.manifest import Gate, Variant
from trainers.evaluate import timing

CHEAPER_MAX = 0.85
"""Differences under 8 % are noise on a shared machine; 15 % of a row's cost is worth another set of answers."""

SMALLER_MAX = 0.6
NOT_DEARER_MAX = 1.08
"""A smaller file loads and travels faster once; a dearer row is paid for with every request. Hence no more than the noise."""


class _Contender(msgspec.Struct, frozen=True):
    """A variant against fp32: cost per row and size as ratios."""

    name: str
    row_ns: float
    cost: float
    size: float
    load_ns: int
    failed: str

    @property
    def wins(self) -> bool:
        return not self.failed and (
            self.cost <= CHEAPER_MAX or (self.size <= SMALLER_MAX and self.cost <= NOT_DEARER_MAX)
        )

    @property
    def rank(self) -> tuple[int, float]:
        return (self.load_ns, self.size)


def choose(
    variants: Sequence[Variant],
    sizes: Mapping[str, int],
    gates: Mapping[str, Sequence[Gate]],
    mix: Mapping[int, float],
) -> tuple[str, str]:
    """The id of the variant to serve, and the reason. `variants[0]` is the reference; `mix` weighs the batch sizes."""
    reference, *others = variants
    reference_ns = timing.row_cost_ns(reference.latency, mix)
    contenders = [_contender(variant, reference, reference_ns, sizes, gates[variant.id], mix) for variant in others]
    winners = [contender for contender in contenders if contender.wins]
    batches = ", ".join(dict.fromkeys(str(cell.batch_rows) for cell in reference.latency))
    measured = f"{reference.id} costs {_us(reference_ns)} per row, the mean over batches of {batches}"
    if not winners:
        return reference.id, f"{reference.id} stays: {'; '.join([measured, *map(_against, contenders)])}."
    cheapest = min(contender.cost for contender in winners)
    best = min((contender for contender in winners if contender.cost * CHEAPER_MAX <= cheapest), key=lambda c: c.rank)
    rest = [_against(contender) for contender in contenders if contender is not best]
    return best.name, f"{best.name} is served: {'; '.join([measured, _against(best), *rest])}."


def _contender(
    variant: Variant,
    reference: Variant,
    reference_ns: float,
    sizes: Mapping[str, int],
    gates: Sequence[Gate],
    mix: Mapping[int, float],
) -> _Contender:
    row_ns = timing.row_cost_ns(variant.latency, mix)
    failed = [f"{gate.name} is {gate.measured:.4g}, limit {gate.limit:.4g}" for gate in gates if not gate.passed]
    return _Contender(
        name=variant.id,
        row_ns=row_ns,
        cost=row_ns / reference_ns,
        size=sizes[variant.id] / sizes[reference.id],
        load_ns=variant.load_ns or 0,
        failed=", ".join(failed),
    )


def _against(contender: _Contender) -> str:
    gates = f"fails ({contender.failed})" if contender.failed else "passes every gate"
    return (
        f"{contender.name} {_us(contender.row_ns)} ({contender.cost:.2f}x) at {contender.size:.2f}x the size, {gates}"
    )


def _us(ns: float) -> str:
    return f"{ns / 1000:.2f} us"

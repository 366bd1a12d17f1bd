"""Which variant to serve, and one honest sentence why. Pure: measurements in, decision out.

fp32 stays unless another variant passes all gates and is clearly cheaper per row, or much smaller and not dearer. Among several
such, the cheapest; where the difference is within the noise, one that runs on every CPU, then the one that loads faster, then the
smaller one. The others keep that order, for hosts that lack what the first one requires.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from gateway.contract.manifest import Gate, Tradeoff, Variant
from trainers.evaluate import pareto

FASTER_MIN = 1.15
"""Differences under 8 % are noise on a shared machine; 15 % of a row's cost is worth another set of answers."""

SMALLER_MAX = 0.6
NOT_DEARER_MAX = 1.08
"""A smaller file loads and travels faster once; a dearer row is paid for with every request. Hence no more than the noise."""


class Choice(msgspec.Struct, frozen=True):
    """`order` names every variant, the one to serve first. `front` are those that passed and that no other one beats."""

    order: tuple[str, ...]
    sentence: str
    front: frozenset[str]


class _Contender(msgspec.Struct, frozen=True):
    """A variant against fp32: cost per row and size as ratios."""

    name: str
    line: Tradeoff
    size: float
    load_ns: int
    requires: tuple[str, ...]
    failed: str

    @property
    def cost(self) -> float:
        return self.line.ratio.median

    @property
    def wins(self) -> bool:
        return not self.failed and not self.line.is_noisy and self.would_win

    @property
    def would_win(self) -> bool:
        """A confidence interval that reaches 1 is no win, whatever the median says."""
        is_cheaper = self.cost * FASTER_MIN <= 1 and self.line.ratio.high < 1
        return is_cheaper or (self.size <= SMALLER_MAX and self.cost <= NOT_DEARER_MAX)


def choose(variants: Sequence[Variant], sizes: Mapping[str, int], gates: Mapping[str, Sequence[Gate]]) -> Choice:
    """`variants[0]` is the reference; each has its trade-off."""
    contenders = [_contender(variant, sizes, sizes[variants[0].id], gates[variant.id]) for variant in variants]
    reference, *others = contenders
    winners = _ranked([contender for contender in others if contender.wins])
    rest = [contender for contender in others if contender not in winners]
    batches = ", ".join(dict.fromkeys(str(cell.batch_rows) for cell in variants[0].latency))
    measured = f"{reference.name} takes {_us(reference)} of CPU per row, the mean over batches of {batches}"
    verb = "is served" if winners else "stays"
    parts = [measured, *map(_against, (*winners, *rest))]
    order = [*winners, reference, *rest]
    return Choice(
        order=tuple(contender.name for contender in order),
        sentence=f"{order[0].name} {verb}: {'; '.join(parts)}.",
        front=pareto.front({c.name: (c.line.row_cpu_ns, c.load_ns, c.size) for c in contenders if not c.failed}),
    )


def worth_rescuing(
    variants: Sequence[Variant], sizes: Mapping[str, int], gates: Mapping[str, Sequence[Gate]], served: str
) -> str | None:
    """The variant nearest to its limits of those that only gates keep from being served in place of `served`.

    What stays fp32 in it makes it dearer, so one that is not clearly cheaper than `served` now never will be.
    """
    contenders = {
        variant.id: _contender(variant, sizes, sizes[variants[0].id], gates[variant.id]) for variant in variants
    }
    now = contenders[served]
    failing = [
        contender
        for contender in contenders.values()
        if contender.failed
        and contender.would_win
        and (served == variants[0].id or contender.cost * FASTER_MIN <= now.cost)
    ]
    if not failing:
        return None
    return min(failing, key=lambda contender: (_excess(gates[contender.name]), contender.cost)).name


def _excess(gates: Sequence[Gate]) -> float:
    """How many times its limit the worst failed gate is."""
    return max((gate.measured / gate.limit if gate.limit else math.inf) for gate in gates if not gate.passed)


def _ranked(winners: list[_Contender]) -> list[_Contender]:
    """Best first: from those within the noise of the cheapest left, one after the other."""
    ranked: list[_Contender] = []
    while len(ranked) < len(winners):
        left = [contender for contender in winners if contender not in ranked]
        cheapest = min(contender.cost for contender in left)
        near = [contender for contender in left if contender.cost <= cheapest * NOT_DEARER_MAX]
        ranked.append(min(near, key=lambda contender: (len(contender.requires), contender.load_ns, contender.size)))
    return ranked


def _contender(variant: Variant, sizes: Mapping[str, int], reference_size: int, gates: Sequence[Gate]) -> _Contender:
    assert isinstance(variant.tradeoff, Tradeoff)
    failed = [f"{gate.name} is {gate.measured:.4g}, limit {gate.limit:.4g}" for gate in gates if not gate.passed]
    return _Contender(
        name=variant.id,
        line=variant.tradeoff,
        size=sizes[variant.id] / reference_size,
        load_ns=variant.load_ns or 0,
        requires=variant.requires,
        failed=", ".join(failed),
    )


def _against(contender: _Contender) -> str:
    gates = f"fails ({contender.failed})" if contender.failed else "passes every gate"
    noise = ", too noisy to believe" if contender.line.is_noisy else ""
    ratio = contender.line.ratio
    return (
        f"{contender.name} {_us(contender)} ({ratio.median:.2f}x, {ratio.low:.2f} to {ratio.high:.2f}{noise}) "
        f"at {contender.size:.2f}x the size, {gates}"
    )


def _us(contender: _Contender) -> str:
    return f"{contender.line.row_cpu_ns / 1000:.2f} us"

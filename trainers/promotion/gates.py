"""What was measured against the rules: one gate for each condition. Pure; whatever is missing does not pass.

A candidate must be no worse, it need not be better: the lower end of its gain may lie below zero by the margin and no further. All
such gates have to pass, so that each can be tested at the full level (an intersection-union test: Berger, Technometrics 24, 1982).
Slices are judged the other way around, for in few rows nothing can be shown to be no worse: a slice holds a version back where it
is surely worse by more than its margin, the doubt being shared out over all of them.
"""

from collections.abc import Mapping, Sequence

import msgspec

from gateway.contract.manifest import Manifest
from gateway.contract.promotions import Gate
from gateway.contract.registry import Promotion
from gateway.contract.words import DAY_NS
from trainers.objectives import Objective
from trainers.promotion import comparing
from trainers.promotion.budgets import Cost
from trainers.promotion.comparing import Compared
from trainers.rules import Rules


def problems(name: str, found: Sequence[str], *, detail: str = "") -> Gate:
    """Passes where there are none."""
    return Gate(name, passed=not found, measured=float(len(found)), limit=0.0, detail="; ".join(found) or detail)


def at_most(name: str, measured: float | None, limit: float, detail: str = "") -> Gate:
    return Gate(name, passed=measured is not None and measured <= limit, measured=measured, limit=limit, detail=detail)


def at_least(
    name: str, measured: float | None, limit: float, detail: str = "", interval: tuple[float, float] | None = None
) -> Gate:
    passed = measured is not None and measured >= limit
    return Gate(name, passed, measured, limit, is_minimum=True, interval=interval, detail=detail)


def quantization(manifest: Manifest) -> Gate:
    """The served variant's own gates, which `trainers.evaluate` recorded."""
    failed = [gate.name for gate in manifest.gates if gate.variant == manifest.serve and not gate.passed]
    return problems("quantization", failed, detail=f"variant {manifest.serve} passed its gates")


class Training(msgspec.Struct, frozen=True):
    """What the candidate learned from, beside what the champion did; None for what was not stored or cannot be read."""

    rows: int
    champion_rows: int | None
    label_shift: float | None
    days_newer: float | None
    is_dated: bool


def training(found: Training, rules: Rules) -> list[Gate]:
    """A champion from before its training was kept, or without dates, has nothing to compare with there."""
    gates = []
    if found.champion_rows is not None:
        ratio = found.rows / max(1, found.champion_rows)
        words = f"{found.rows:,} rows of training, the champion had {found.champion_rows:,}"
        gates += [
            at_least("train_rows_min", ratio, rules.train_rows_ratio_min, words),
            at_most("train_rows_max", ratio, rules.train_rows_ratio_max, words),
            at_most("label_shift", found.label_shift, rules.label_shift_max, "between both trainings"),
        ]
    if found.is_dated:
        gates.append(at_least("days_newer", found.days_newer, 0.0, "the newest row against the champion's newest"))
    return gates


def floors(compared: Compared, objective: Objective, rules: Rules) -> list[Gate]:
    """Absolute, and on the newest rows, whoever the champion is."""
    higher = {metric.name: metric.higher_is_better for metric in objective.metrics}
    measured = compared.judged.candidate
    return [
        (at_least if higher.get(name, True) else at_most)(f"floor {name}", measured.get(name), limit, compared.problem)
        for name, limit in rules.floors.items()
    ]


def no_worse(compared: Compared, objective: Objective, rules: Rules) -> list[Gate]:
    """One gate for each metric, and one for the worst slice. Rows that were skipped have none."""
    judged = compared.judged
    if judged.skipped:
        return []
    if not objective.metrics:
        return [at_least(f"{judged.name} metric", None, 0.0, compared.problem)]
    gates = []
    for metric in objective.metrics:
        limit = -rules.margins.get(metric.name, rules.margin)
        interval = judged.gains.get(metric.name)
        low = None if interval is None else interval[0]
        words = compared.problem or _gained(compared, objective, metric.name)
        gates.append(at_least(f"{judged.name} {metric.name}", low, limit, words, interval))
    worst = min(compared.slices, key=lambda one: one.high, default=None)
    if worst is not None:
        words = f"worst is '{worst.name}', {worst.rows:,} rows: {objective.watched.name} gains {worst.gain:+.4f}, "
        words += (
            f"at most {worst.high:+.4f}; {len(compared.slices)} slices judged, {compared.small} too small or uniform"
        )
        gates.append(at_least(f"{judged.name} slice", worst.high, -rules.slice_margin, words))
    return gates


def better(compared: Compared, objective: Objective, rules: Rules) -> list[Gate]:
    """Only where the rules ask for it."""
    if not rules.must_be_better or not objective.metrics:
        return []
    name = objective.watched.name
    interval = compared.judged.gains.get(name)
    low = None if interval is None else interval[0]
    detail = compared.problem or "must surely gain"
    gate = at_least(f"better {name}", low, 0.0, detail, interval)
    return [msgspec.structs.replace(gate, passed=low is not None and low > 0)]


def _gained(compared: Compared, objective: Objective, metric: str) -> str:
    judged = compared.judged
    before, after = judged.champion[metric], judged.candidate[metric]
    gained = comparing.gain(objective, judged, metric)
    return f"{after:.4f}, the champion has {before:.4f} on the same {judged.rows:,} rows: a gain of {gained:+.4f}"


def budgets(costs: Mapping[str, Cost], rules: Rules) -> list[Gate]:
    """The candidate over the champion. A limit without a measurement is one that is not kept."""
    gates = []
    for name, limit in rules.budgets.items():
        cost = costs.get(name, Cost(name, None, None))
        gates.append(at_most(name, cost.ratio, limit, cost.words))
    return gates


def pace(entries: Sequence[Promotion], now_ns: int, rules: Rules) -> list[Gate]:
    """`entries` are all decisions about the alias, oldest first; those that changed who answers count, rollbacks included."""
    changes = [
        entry
        for before, entry in zip([None, *entries][:-1], entries, strict=True)
        if before is None or before.version != entry.version
    ]
    today = sum(entry.promoted_ns > now_ns - DAY_NS for entry in changes)
    gates = [at_most("promotions_today", float(today), rules.promotions_per_day_max - 1, "earlier ones, in 24 hours")]
    if changes and rules.cooldown_s:
        since_s = (now_ns - changes[-1].promoted_ns) / 1e9
        gates.append(at_least("cooldown_s", since_s, rules.cooldown_s, "since another version took over"))
    return gates

"""A decision in words: one sentence for people, and the reason that goes into the promotion log with it."""

from gateway.contract import layout
from gateway.contract.promotions import Decision, Gate, Judged

NAMED_MAX = 3
"""Failed gates in a sentence; all of them are in the record."""

DIGITS = 12


def sentence(decision: Decision) -> str:
    """What was decided and what decided it."""
    version = f"version {decision.version}"
    other = f"version {decision.champion_version}"
    failed = _listed(decision.failed)
    if decision.verdict == "hold":
        stays = f"; {other} goes on" if decision.champion_version else ""
        return f"{version} is held back: {failed}{stays}"
    if decision.champion_version is None:
        return f"{version} is the first: there is no other to compare it with"
    told = sorted(decision.judged, key=lambda judged: not judged.gains)
    against = "; ".join(filter(None, map(_gained, told)))
    if decision.alias == layout.CHAMPION:
        return f"{version} takes over from {other}: {against}"
    doubts = [gate for gate in decision.gates if not gate.passed]
    kept = f"; as champion it would be held back: {_listed(doubts)}" if doubts else ""
    return f"{version} answers as '{decision.alias}'; against {other}: {against or 'not comparable'}{kept}"


def reason(decision: Decision) -> str:
    """The sentence, the run, and which record it can be checked with."""
    return f"run {decision.run_id}: {decision.sentence} [decision {decision.report_sha256[:DIGITS]}]"


def limit(gate: Gate) -> str:
    return f"at {'least' if gate.is_minimum else 'most'} {gate.limit:.4g}"


def failure(gate: Gate) -> str:
    """Why this gate did not pass."""
    if gate.measured is None:
        return f"{gate.name} could not be measured" + (f" ({gate.detail})" if gate.detail else "")
    if gate.name in {"integrity", "signature", "quantization"}:
        return f"{gate.name}: {gate.detail}"
    if gate.interval is not None:
        low, high = gate.interval
        return f"{gate.name} gains {low:+.4f} to {high:+.4f}, must surely be {limit(gate)}"
    return f"{gate.name} is {gate.measured:.4g}, must be {limit(gate)}"


def _listed(failed: "list[Gate] | tuple[Gate, ...]") -> str:
    named = ", ".join(failure(gate) for gate in failed[:NAMED_MAX])
    return named + (f" and {len(failed) - NAMED_MAX} more" if len(failed) > NAMED_MAX else "")


def _gained(judged: Judged) -> str:
    if not judged.gains:
        return f"the {judged.name} rows decide nothing: {judged.skipped}" if judged.skipped else ""
    gains = ", ".join(f"{name} {low:+.4f} to {high:+.4f}" for name, (low, high) in judged.gains.items())
    return f"gains on {judged.rows:,} {judged.name} rows {gains}"

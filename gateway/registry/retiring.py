"""When a version was retired: it stopped answering under every alias and did not come back within a week. Pure, of the log alone.

Nobody declares it; the promotion log has it. A rollback within the week brings a version back as if nothing had been, one that
comes later finds it retired already: what rests on a retirement (its training cost written off) is never taken back. Reports ask.
"""

from collections.abc import Iterable

from gateway.contract.registry import Promotion

BACK_WITHIN_NS = 7 * 24 * 3600 * 10**9
"""As long as rollbacks are usual."""


def retirements(history: Iterable[Promotion]) -> dict[int, int]:
    """The moment of each version of one model that was retired, which may lie ahead: then it is, unless it comes back.

    Versions that no alias ever had are in no log, and so never retired. Shadows do not answer.
    """
    answering: dict[str, frozenset[int]] = {}
    silent_ns: dict[int, int] = {}
    retired_ns: dict[int, int] = {}
    for entry in sorted(history, key=lambda entry: entry.generation):
        before = frozenset[int]().union(*answering.values())
        answering[entry.alias] = frozenset({entry.version, *(canary.version for canary in entry.canaries)})
        now = frozenset[int]().union(*answering.values())
        for version in now - before:
            since_ns = silent_ns.pop(version, entry.promoted_ns)
            if entry.promoted_ns - since_ns >= BACK_WITHIN_NS:
                retired_ns.setdefault(version, since_ns + BACK_WITHIN_NS)
        silent_ns |= dict.fromkeys(before - now, entry.promoted_ns)
    for version, since_ns in silent_ns.items():
        retired_ns.setdefault(version, since_ns + BACK_WITHIN_NS)
    return retired_ns

"""One thing that is wrong with the ledger, or worth knowing, as reports carry and show it: `gateway.reports.findings` makes it."""

from collections.abc import Iterable
from typing import Literal

import msgspec

Kind = Literal[
    "unbalanced",
    "unpriced",
    "gap",
    "broken_chain",
    "running",
    "not_closed",
    "never_opened",
    "foreign_object",
    "training_unknown",
    "corrected",
    "clock_jump",
    "no_price_book",
    "unreadable_segment",
]


class Finding(msgspec.Struct, frozen=True):
    """About the ledger in [from_ns, to_ns]. `ahead_picousd` is what of the period's `unattributed` it explains."""

    kind: Kind
    message: str
    is_fault: bool
    from_ns: int = 0
    to_ns: int = 0
    ahead_picousd: int = 0


def ahead_picousd(found: Iterable[Finding]) -> int:
    """The part of `unattributed` that is billed ahead for containers that still run: nothing went wrong with it."""
    return sum(finding.ahead_picousd for finding in found)

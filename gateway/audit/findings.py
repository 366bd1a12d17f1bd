"""What an audit of the ledger says: findings by kind, and the sums it could prove."""

from typing import Literal

import msgspec

Kind = Literal[
    "damaged",
    "newer_version",
    "misplaced",
    "duplicate",
    "gap",
    "broken_chain",
    "unbalanced",
    "edited_price",
    "wrong_charge",
    "clock_jump",
    "never_opened",
    "unattributed",
    "foreign_object",
    "missing_file",
    "unfinished",
]


class Finding(msgspec.Struct, frozen=True):
    """`key` is the object it is about, where there is one. A fault means that the ledger is not whole; a note does not."""

    kind: Kind
    message: str
    is_fault: bool = True
    key: str = ""
    container: str = ""
    from_ns: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """`charged_picousd` is in segments that could be read, `unattributed_picousd` in the gaps between and after them.

    Without a fault the two add up to the bill of all lives that were looked at. `corrected_picousd` is what the provider's bills
    added, or below zero took away, in postings of all times; 0 for one container alone. `expired` of the `segments` are no more and
    were read from the files that they were compacted into; one that neither is there nor compacted is a gap.
    """

    segments: int
    lives: int
    requests: int
    charged_picousd: int
    unattributed_picousd: int
    findings: tuple[Finding, ...]
    corrected_picousd: int = 0
    expired: int = 0
    schema_version: int = 1

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is wrong; empty when the ledger is whole."""
        return tuple(finding for finding in self.findings if finding.is_fault)

"""Whether a segment's numbers fit into the columns of Parquet. Compaction asks first: a plan must be one that can be finished.

No gateway writes larger ones, so such a segment was damaged or made up. Requests are not looked at: their costs add up to
postings, which are, and the rest of them was measured.
"""

from collections.abc import Iterator

import msgspec

from gateway.audit.findings import Finding
from gateway.reports.heads import Head

NUMBER_MAX = 2**63 - 1
QUANTITY_MAX = 10**33
"""DECIMAL(38, 0) holds the sum of 100,000 of them, more than one hour's segments of a life have."""
_WIDE = ("quantity", "beyond")


def check(key: str, head: Head) -> Iterator[Finding]:
    """At most one finding, about the first number that is too large."""
    for line in (head.segment, *head.money):
        for name, number in _numbers(msgspec.to_builtins(line)):
            largest = QUANTITY_MAX if name in _WIDE else NUMBER_MAX
            if number > largest:
                text = f"{key} says {name} {number:,}: more than {largest:,}, which no gateway writes and Parquet cannot hold"
                yield Finding("damaged", text, key=key, container=head.segment.container, from_ns=head.segment.from_ns)
                return


def _numbers(fields: dict[str, object]) -> Iterator[tuple[str, int]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield name, value

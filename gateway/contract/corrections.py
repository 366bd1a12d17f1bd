"""What a provider's bill says differently than the ledger, as new rows: `steelyard costs reconcile BILL --post`.

One object is one posting of one bill, claimed whole under the next number: all of its corrections are in the ledger, or none is.
Nothing is ever changed; a later bill adds the difference to what was corrected so far. Each correction is a double entry: its cost
is what the bill charges beyond the ledger for a resource's sku (below zero: less), its entries distribute exactly that over the
account `correction`, by hour and, where a model had traffic, by model. Money is pico-dollars, time nanoseconds since the epoch.
"""

from typing import Literal

import msgspec

from gateway.contract import codec
from gateway.contract.words import Count, Positive, Sha256

Reason = Literal["quantity", "price", "unobserved"]
REASONS: tuple[Reason, ...] = ("quantity", "price", "unobserved")

ACCOUNT = "correction"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a correction, in the clock hour that begins at `hour_ns`. Without a model it is the platform's."""

    hour_ns: Count
    sku: str
    cost_picousd: int
    model: str = ""
    version: Count = 0
    tenant: str = ""
    outcome: str = ""


class Correction(msgspec.Struct, frozen=True):
    """One resource's sku in [from_ns, to_ns), whole hours. The entries' costs add up to `cost_picousd`.

    `quantity`: the bill has more or less of it. `price`: it has another price; also all difference where the bill states no
    quantity. `unobserved`: the ledger has no charge for it. `resource` is the bill's word, `container` the ledger's ("" when it
    knows none). `ledger`, `corrected` (by earlier postings, whatever the reason) and `bill` are what was found: the corrections of
    a posting for the same resource, sku and time together are the bill less the two others. `ordinal` counts repetitions.
    """

    id: Sha256
    reason: Reason
    resource: str
    container: str
    service: str
    sku: str
    from_ns: Count
    to_ns: Count
    ledger_picousd: int
    corrected_picousd: int
    bill_picousd: int
    cost_picousd: int
    entries: tuple[Entry, ...]
    ordinal: Count = 0


class Posted(msgspec.Struct, frozen=True):
    """One posting of a bill, with the digest of the posting before it ("" for the first). `bill_sha256` is the file's."""

    generation: Positive
    previous_sha256: str
    bill_sha256: Sha256
    bill_name: str
    posted_ns: Count
    actor: str
    cost_picousd: int
    corrections: tuple[Correction, ...]
    schema_version: int = 1


def identity(bill_sha256: str, line: Correction) -> str:
    """The same bill, time, resource and sku give the same id, whoever posts it."""
    parts = (bill_sha256, line.from_ns, line.to_ns, line.resource, line.sku, line.reason, line.ordinal)
    return codec.sha256(msgspec.json.encode(parts))


def problems(posted: Posted) -> tuple[str, ...]:
    """What does not add up, in words; empty when every correction balances."""
    found = []
    for line in posted.corrections:
        name = f"the correction of {line.sku!r} of {line.resource!r}"
        if sum(entry.cost_picousd for entry in line.entries) != line.cost_picousd:
            found.append(f"{name} and its entries differ")
        if line.id != identity(posted.bill_sha256, line):
            found.append(f"{name} has an id that is not its own")
        if not all(line.from_ns <= entry.hour_ns < line.to_ns for entry in line.entries):
            found.append(f"{name} has entries outside its time")
    if sum(line.cost_picousd for line in posted.corrections) != posted.cost_picousd:
        found.append("the header's cost and the corrections differ")
    if len({line.id for line in posted.corrections}) < len(posted.corrections):
        found.append("a correction is there twice")
    return tuple(found)

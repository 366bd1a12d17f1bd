"""That an alert about a budget went out: `budgets/v1/<id>/<period>/<threshold>.json`, claimed once, then moved by compare-and-swap.

Whoever holds the claim sends. `sent` is final. `failed` and a `sending` whose time is over are anybody's to try again.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract.words import Count, Positive

BudgetId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)")]
ThresholdId = Annotated[str, Meta(pattern=r"^(spent|forecast)-[0-9]{1,7}(\.[0-9]{1,6})?$(?!\n)")]


class Alert(msgspec.Struct, frozen=True):
    """`until_ns` bounds how long a `sending` may last; `attempts` counts those that began. `reason` is the last failure's."""

    budget: BudgetId
    threshold: ThresholdId
    period_from_ns: Count
    state: Literal["sending", "sent", "failed"]
    attempts: Positive
    at_ns: Count
    until_ns: Count
    reason: str = ""
    schema_version: int = 1

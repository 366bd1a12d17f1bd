"""What was decided about promoting a run's result, and everything it rests on: `runs/<run>/decision.json`.

Written by `trainers.promotion` before the alias moves; whether it moved is in the promotion log, whose reason carries the
decision's sentence and digest. A gate that could not be measured has `measured` null and never passes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract.words import Count, Name, Positive, Sha256

Verdict = Literal["promote", "hold", "first"]
"""`first`: there was nobody to compare with."""

Digest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$(?!\n)")]


class Gate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check: `measured` is at most `limit`, or with `is_minimum` at least. Only an `is_condition` one can hold a version back.

    `interval` is where the measured quantity lies with 95 % confidence, and `detail` what it is, in words.
    """

    name: str
    passed: bool
    measured: float | None
    limit: float
    is_minimum: bool = False
    is_condition: bool = True
    interval: tuple[float, float] | None = None
    detail: str = ""


class Judged(msgspec.Struct, frozen=True, omit_defaults=True):
    """Both versions on the very same rows, scored anew. `gains`: 95 % intervals of how much better the candidate is.

    `frozen` rows came with the champion; `excluded` of them were left out because the candidate's own training held them. `newest`
    rows are the candidate's test split. `skipped` says why these rows decided nothing.
    """

    name: Literal["frozen", "newest"]
    rows: Count
    excluded: Count = 0
    champion: dict[str, float] = {}
    candidate: dict[str, float] = {}
    gains: dict[str, tuple[float, float]] = {}
    skipped: str = ""


class Decision(msgspec.Struct, frozen=True):
    """The champion is the one at that moment. `report_sha256` is the digest of this very record with that field empty."""

    run_id: Name
    model: Name
    alias: Name
    verdict: Verdict
    sentence: str
    version: Positive
    manifest_sha256: Sha256
    champion_version: Positive | None
    champion_sha256: Sha256 | None
    gates: tuple[Gate, ...]
    judged: tuple[Judged, ...]
    actor: str
    decided_ns: Count
    report_sha256: Digest = ""
    schema_version: int = 1

    @property
    def failed(self) -> tuple[Gate, ...]:
        """What holds the version back."""
        return tuple(gate for gate in self.gates if gate.is_condition and not gate.passed)

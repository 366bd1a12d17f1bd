"""What a model's columns looked like when it was trained, and how many rows fell where since: the ground that drift is judged on.

Counts only, never a row and never a value that a caller sent: a logged window says how many rows fell between two edges that
were fixed in training, or had a category that training knew. An unknown category is one more "other", a missing value one more
"missing". The edges and categories themselves come from the training data and are as public as the artifact that holds them.

The trainer writes the `FeatureProfile` (`trainers.drift.profile`), the gateway the `FeatureWindow` (`gateway.features`), and
`trainers.drift` compares them.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract.words import Count, Name, Positive, Sha256

PROFILE_FILE = "profile.json"
PROFILE_BYTES_MAX = 4 << 20
"""A thousand columns of twenty bins are 400 KB; an artifact that claims more is not what a publisher of ours writes."""

EDGES_MAX = 20
KNOWN_MAX = 100
"""Categories counted one by one, the commonest in training; the rest are "other"."""

Side = Literal["input", "output"]


class ColumnProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of the signature over the reference rows: element `at` along the last axis of `tensor`.

    A number x is in bin i when edges[i - 1] <= x < edges[i]; the first and the last bin are open. NaN is missing. A category is in
    the bin of its place in `known`, or in the last one, "other". `counts` has one figure per bin and leaves missing values out.
    `stretch_psi`: how far the most unusual of some consecutive stretches of the reference rows is from all of them (population
    stability index); rows in order of time differ so much by weather, weekday and season alone.
    `positives`, for a probability of yes with known outcomes: how many of each bin's rows were a yes.
    """

    side: Side
    tensor: str
    at: Count
    name: str
    kind: Literal["number", "category"]
    counts: tuple[Count, ...]
    edges: tuple[float, ...] = ()
    known: tuple[str, ...] = ()
    missing: Count = 0
    stretch_psi: Annotated[float, Meta(ge=0)] = 0.0
    positives: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        inner = self.edges if self.kind == "number" else self.known
        if len(self.counts) != len(inner) + 1:
            raise ValueError(f"column '{self.name}' has {len(self.counts)} counts for {len(inner) + 1} bins")
        if len(self.edges) > EDGES_MAX or any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"column '{self.name}': edges must ascend, at most {EDGES_MAX} of them")
        if len(self.known) > KNOWN_MAX or len(set(self.known)) != len(self.known):
            raise ValueError(f"column '{self.name}': known categories must differ, at most {KNOWN_MAX} of them")
        if self.positives and (
            len(self.positives) != len(self.counts) or any(map(int.__gt__, self.positives, self.counts))
        ):
            raise ValueError(f"column '{self.name}': positives must be parts of counts, bin by bin")

    @property
    def rows(self) -> int:
        return sum(self.counts) + self.missing


class FeatureProfile(msgspec.Struct, frozen=True):
    """Stored in the artifact under the role `profile`. Inputs may be counted over other rows than outputs."""

    columns: tuple[ColumnProfile, ...]
    schema_version: int = 1


class ColumnCounts(msgspec.Struct, frozen=True):
    """Rows of one window by the bins of the profile's column of the same place."""

    name: str
    counts: tuple[Count, ...]
    missing: Count


class FeatureWindow(msgspec.Struct, frozen=True):
    """What one container counted of one model version from `from_ns` to `to_ns` (Unix time), never much longer than an hour.

    `rows_seen` were answered, `rows_sampled` of them are counted, and `rows_dropped` were to be counted and were not because
    counting was behind. `sample` is the share of rows that was to be counted.
    """

    model: Name
    version: Positive
    profile_sha256: Sha256
    container: str
    boot_ns: Count
    seq: Count
    from_ns: Count
    to_ns: Count
    sample: Annotated[float, Meta(gt=0, le=1)]
    rows_seen: Count
    rows_sampled: Count
    rows_dropped: Count
    columns: tuple[ColumnCounts, ...]
    schema_version: int = 1

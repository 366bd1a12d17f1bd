"""What is counted of one model version between two moments, and how it is stored."""

from collections.abc import Sequence

from gateway.contract import codec, layout
from gateway.contract.features import FeatureWindow
from gateway.features.counting import Counts, Plan, Rows
from gateway.features.shipping import Parcel


class Window:
    """The counting thread has `counts` and `rows_sampled`, the event loop the rest. `to_ns` is set when it is closed."""

    __slots__ = ("counts", "from_ns", "model", "plan", "profile_sha256", "rows_dropped", "rows_sampled", "rows_seen", "to_ns",
                 "version")  # fmt: skip

    def __init__(self, model: str, version: int, plan: Plan, profile_sha256: str, from_ns: int) -> None:
        self.model = model
        self.version = version
        self.plan = plan
        self.profile_sha256 = profile_sha256
        self.from_ns = self.to_ns = from_ns
        self.rows_seen = self.rows_sampled = self.rows_dropped = 0
        self.counts: list[Counts] = plan.empty()

    def next(self, from_ns: int) -> "Window":
        """An empty one of the same version."""
        return Window(self.model, self.version, self.plan, self.profile_sha256, from_ns)

    def count(self, rows: Sequence[Rows]) -> int:
        """In a thread. How many rows that were."""
        self.plan.add(self.counts, rows)
        count = sum(each.rows for each in rows)
        self.rows_sampled += count
        return count

    def parcel(self, *, container: str, boot_ns: int, seq: int, sample: float) -> Parcel:
        """As it goes to the store."""
        record = FeatureWindow(
            model=self.model,
            version=self.version,
            profile_sha256=self.profile_sha256,
            container=container,
            boot_ns=boot_ns,
            seq=seq,
            from_ns=self.from_ns,
            to_ns=self.to_ns,
            sample=sample,
            rows_seen=self.rows_seen,
            rows_sampled=self.rows_sampled,
            rows_dropped=self.rows_dropped,
            columns=self.plan.columns(self.counts),
        )
        key = layout.feature_window(self.model, from_ns=self.from_ns, container=container, boot_ns=boot_ns, seq=seq)
        return Parcel(key, codec.encode(record), self.rows_sampled)

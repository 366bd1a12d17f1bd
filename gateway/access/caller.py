"""Who asks, what they may ask for, and how much of it. One `Caller` per key in each gateway, shared by all its requests.

The HTTP layer calls `check`, then `enter`, and `leave` in the end. All three are O(1), never wait and never touch the store: rate
and concurrency are this gateway's own, and a budget compares numbers that `gateway.access.fleet` refreshes behind.
"""

import fnmatch
import re
from collections.abc import Callable

from gateway.access.bucket import TokenBucket
from gateway.access.spend import DaySpend, reset_ns
from gateway.contract.access import RIGHTS, KeyRecord, Right
from gateway.errors import BudgetExceeded, Forbidden
from gateway.wording import moment, usd

BUSY_RETRY_MS = 1000
"""When one of a caller's own requests ends is not known here; a second is what other refusals suggest."""


class Caller:
    """A key's rights and limits. Without a record: nobody in particular (tenant and key id are empty), everything, no limits."""

    __slots__ = (
        "_bucket",
        "_concurrency",
        "_globs",
        "_is_limited",
        "_models",
        "_now_ns",
        "_pattern",
        "digest",
        "expires_ns",
        "in_flight",
        "key_id",
        "purse",
        "rights",
        "tenant",
    )

    def __init__(self, now_ns: Callable[[], int], record: KeyRecord | None = None) -> None:
        """`now_ns`: nanoseconds since the Unix epoch that never go back, such as `SystemClock.now_ns`."""
        self._now_ns = now_ns
        self.in_flight = 0
        self.key_id = self.tenant = ""
        self.digest = b""
        self.rights: frozenset[Right] = frozenset(RIGHTS)
        self.expires_ns: int | None = None
        self.purse: DaySpend | None = None
        self._bucket: TokenBucket | None = None
        self._concurrency: int | None = None
        self._models: frozenset[str] = frozenset()
        self._globs: tuple[str, ...] = ("*",)
        self._pattern: re.Pattern[str] | None = None
        self._is_limited = False
        if record is not None:
            self.update(record)

    def update(self, record: KeyRecord) -> None:
        """Take over what the record says. Requests in flight stay counted, and what was spent today stays spent."""
        self.key_id, self.tenant = record.id, record.tenant
        self.digest = bytes.fromhex(record.secret_sha256)
        self.rights = frozenset(record.rights)
        self.expires_ns = record.expires_ns
        self._models = frozenset(name for name in record.models if "*" not in name)
        self._globs = tuple(name for name in record.models if "*" in name)
        self._pattern = None
        self._concurrency = record.concurrency
        self._limit_rate(record.rps, record.burst or record.rps)
        if record.budget_picousd_per_day is None:
            self.purse = None
        elif self.purse is None:
            self.purse = DaySpend(record.budget_picousd_per_day)
        else:
            self.purse.budget_picousd = record.budget_picousd_per_day
        self._is_limited = any(limit is not None for limit in (self._bucket, self._concurrency, self.purse))

    def _limit_rate(self, rps: int | None, burst: int | None) -> None:
        """A rate that stays gives nothing back: a record is read again from time to time."""
        if rps is None or burst is None:
            self._bucket = None
        elif self._bucket is None or (self._bucket.rps, self._bucket.burst) != (rps, burst):
            self._bucket = TokenBucket(rps, burst, self._now_ns())

    def may(self, model: str) -> bool:
        """Whether this caller may know of the model and ask it."""
        return model in self._models or (bool(self._globs) and self._matches(model))

    def check(self, model: str) -> None:
        """Raises `Forbidden` unless this caller may have predictions from the model."""
        if "predict" not in self.rights:
            raise self._lacks("predict")
        if not self.may(model):
            raise Forbidden(f"key '{self.key_id}' of tenant '{self.tenant}' may not call model '{model[:64]}'")

    def require(self, right: Right) -> None:
        """Raises `Forbidden` unless this caller has the right."""
        if right not in self.rights:
            raise self._lacks(right)

    def enter(self) -> None:
        """Count a request in; exactly one `leave` must follow. Raises `BudgetExceeded`, and then nothing is counted."""
        if self._is_limited:
            self._check_limits()
        self.in_flight += 1

    def leave(self, cost_picousd: int = 0) -> None:
        """Count a request out, and its direct receipt against the budget unless `charge` was told of it."""
        self.in_flight -= 1
        if cost_picousd and self.purse is not None:
            self.purse.add(self._now_ns(), cost_picousd)

    def charge(self, cost_picousd: int) -> None:
        """Count a direct receipt against the budget; also one of a request that failed, where that is where it is known."""
        if self.purse is not None:
            self.purse.add(self._now_ns(), cost_picousd)

    def _matches(self, model: str) -> bool:
        """One expression for all globs, made for the first call: 0.1 ms that an idle key need not cost.

        `fnmatch` writes it without backtracking, so that no name makes it slow.
        """
        if self._pattern is None:
            self._pattern = re.compile("|".join(fnmatch.translate(glob) for glob in self._globs))
        return self._pattern.match(model) is not None

    def _check_limits(self) -> None:
        """The rate comes last: a request that another limit refuses takes no token."""
        now_ns = self._now_ns()
        if self.purse is not None and self.purse.is_spent(now_ns):
            raise self._spent(self.purse, now_ns)
        if self._concurrency is not None and self.in_flight >= self._concurrency:
            raise BudgetExceeded(
                f"key '{self.key_id}' has {self.in_flight} requests in flight and may have {self._concurrency}; "
                "wait for one to end",
                retry_after_ms=BUSY_RETRY_MS,
            )
        if self._bucket is not None and (wait_ns := self._bucket.take(now_ns)):
            wait_ms = -(-wait_ns // 1_000_000)
            raise BudgetExceeded(
                f"key '{self.key_id}' may send {self._bucket.rps} requests per second; the next one in {wait_ms} ms",
                retry_after_ms=wait_ms,
            )

    def _spent(self, purse: DaySpend, now_ns: int) -> BudgetExceeded:
        resets_ns = reset_ns(now_ns)
        return BudgetExceeded(
            f"key '{self.key_id}' has spent its budget of ${usd(purse.budget_picousd)} a day; "
            f"it resets at {moment(resets_ns)}",
            retry_after_ms=-(-(resets_ns - now_ns) // 1_000_000),
        )

    def _lacks(self, right: Right) -> Forbidden:
        return Forbidden(
            f"this needs the right '{right}'; key '{self.key_id}' of tenant '{self.tenant}' "
            f"has: {', '.join(sorted(self.rights))}"
        )

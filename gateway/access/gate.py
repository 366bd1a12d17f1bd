"""Who may come in: decides whether keys are needed at all, keeps them and the budgets up to date, and names the caller.

`gateway.bootstrap` opens one; the HTTP layer asks it for every request. Whether a key is needed (`access.required`):

auto     once the store holds any key record, even a revoked one, and on every address; also on an address that others reach.
         Without a single record a loopback address is open, and so is any other with --insecure-no-auth.
always   from the start, also on loopback; without keys everybody is refused.
never    nobody needs one, and who sends a good one is known by it and held to its limits. Other addresses than loopback need
         --insecure-no-auth.

Keys that were needed once stay needed until the process ends: deleting the last record opens no door.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Annotated, Any, Literal  # Any: a coroutine's send and yield types, which nobody uses

import msgspec
from msgspec import Meta

from gateway.access.caller import Caller
from gateway.access.fleet import FleetSpend
from gateway.access.keyring import KeyRing
from gateway.access.stored import StoredKeys
from gateway.contract.words import Positive
from gateway.errors import (
    BucketNotFound,
    GatewayError,
    SettingsError,
    StoreRefused,
    StoreUnavailable,
    Unauthenticated,
)
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 3.0
"""For the last spend record. With the drain's 15 s and the ledger's 10 s that stays below the 30 s after which Fargate kills."""


class AccessOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`required`: see the module. `poll_s`: how soon a new key is known, and a revoked one refused, in a running gateway.
    Where something else than `steelyard keys` changed a record and left its size as it was, that takes up to 120 of them.

    `spend_interval_s`: how often what keys with a budget spent is exchanged with the other gateways. Once a budget is spent each
    gateway lets through two of these at most (one that is alone: nothing); 10 s cost a busy gateway $2.60 a month on S3, and $0.10
    more for each other gateway (PUT and LIST $5, GET $0.40 per million). `keys_max`: 20,000 keys take 35 MB. `store_timeout_s`: one
    look at the store, after which the next begins. `metrics_open`: `/metrics` needs no key.
    """

    required: Literal["auto", "always", "never"] = "auto"
    poll_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    spend_interval_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
    keys_max: Positive = 20_000
    store_timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    metrics_open: bool = True


class Gate:
    """An async context manager around serving. Entering reads the keys; raises `SettingsError` when serving would be unsafe."""

    def __init__(
        self,
        store: ObjectStore,
        options: AccessOptions,
        *,
        container: str,
        boot_ns: int,
        now_ns: Callable[[], int],
        is_loopback: bool,
        insecure_no_auth: bool,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`now_ns`: nanoseconds since the Unix epoch that never go back. `container` and `boot_ns` name this life in the store."""
        self.options = options
        self.ring = KeyRing(now_ns)
        self._stored = StoredKeys(store, self.ring, keys_max=options.keys_max)
        self._fleet = FleetSpend(store, container=container, boot_ns=boot_ns)
        self._now_ns = now_ns
        self._may_be_open = is_loopback or insecure_no_auth
        self._sleep = sleep
        self._nobody = Caller(now_ns)
        self._is_open = options.required == "never"
        self._is_known = False
        self._had_keys = False
        self._problems: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Gate":
        """Raises `SettingsError`, or the store's error when waiting will not heal it; a store that is merely away is waited for."""
        if self._is_open and not self._may_be_open:
            raise SettingsError(
                "access.required is 'never' on an address that others can reach: say --insecure-no-auth, or 'auto'"
            )
        try:
            await self._refresh()
            self._refuse_to_start_without_keys()
        except (BucketNotFound, StoreRefused):
            raise
        except StoreUnavailable as error:
            self._report("keys", str(error))
        for name, work, interval_s in (
            ("keys", self._look, self.options.poll_s),
            ("spend", self._exchange, self.options.spend_interval_s),
        ):
            self._tasks.append(asyncio.create_task(self._repeat(name, work, interval_s), name=f"access {name}"))
        logger.info(
            "%s; %d usable keys", "open: no key is needed" if self._is_open else "keys needed", self.ring.usable()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what was spent since the last exchange, within `CLOSE_TIMEOUT_S`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._fleet.close(self.ring.purses(), self._now_ns())
        except (GatewayError, TimeoutError) as failure:
            logger.warning("what keys with a budget spent last is not in the store: %s", failure)

    @property
    def needs_key(self) -> bool:
        """Whether a request without a key is refused."""
        return not self._is_open

    def caller(self, authorization: bytes | None, key_header: bytes | None) -> Caller:
        """Who sends these values of the headers `Authorization` and `Steelyard-Key` (None: the header is absent).

        Raises `Unauthenticated`, or `StoreUnavailable` while the keys were never read.
        """
        if self._is_open:
            return self._anyone(authorization, key_header)
        if not self._is_known:  # "not known here" would be a guess, and what a key spent today is not known either
            retry_ms = round(self.options.poll_s * 1000)
            raise StoreUnavailable("the store with the keys could not be read yet", retry_after_ms=retry_ms)
        return self.ring.caller(authorization, key_header)

    def _anyone(self, authorization: bytes | None, key_header: bytes | None) -> Caller:
        """Through the open door. A header that is meant for somebody else does not close it."""
        if authorization is None and key_header is None:
            return self._nobody
        try:
            return self.ring.caller(authorization, key_header)
        except Unauthenticated:
            return self._nobody

    def _refuse_to_start_without_keys(self) -> None:
        if self._is_open or self.ring.usable():
            return
        if not self._may_be_open and self.options.required == "auto":
            raise SettingsError(
                "this address lets others in and the store holds no usable key: steelyard keys add --tenant NAME, "
                "keep 127.0.0.1 behind a proxy, or say --insecure-no-auth"
            )
        logger.warning("the store holds no usable key, so every caller is refused: steelyard keys add --tenant NAME")

    async def _look(self) -> None:
        """The poll. When it is the first that succeeds, the process listens already and cannot refuse to start."""
        was_known = self._is_known
        await self._refresh()
        if not was_known and not self._is_open and not self.ring.usable():
            logger.error("the store holds no usable key, so every caller is refused: steelyard keys add --tenant NAME")

    async def _refresh(self) -> None:
        """Raises a `GatewayError`; what was read until then counts."""
        async with _deadline(self.options.store_timeout_s):
            await self._stored.refresh()
            if not self._is_known and (purses := self.ring.purses()):
                await self._fleet.read(purses, self._now_ns())
        self._is_known = True
        if self.options.required == "auto" and self._may_be_open and not self._had_keys:
            self._had_keys = self._stored.found > 0
            if self._is_open and self._had_keys:
                logger.info("the store holds keys now: every caller needs one")
            self._is_open = not self._had_keys

    async def _exchange(self) -> None:
        async with _deadline(self.options.store_timeout_s):
            await self._fleet.sync(self.ring.purses(), self._now_ns())

    async def _repeat(self, name: str, work: Callable[[], Coroutine[Any, Any, None]], interval_s: float) -> None:
        while True:
            await self._sleep(interval_s)
            try:
                await work()
                self._report(name, "")
            except GatewayError as error:
                self._report(name, str(error))
            except Exception:  # a bug: say so, keep the last known, look again
                logger.exception("access: looking at %s failed", name)

    def _report(self, name: str, problem: str) -> None:
        """Once when it begins and once when it ends."""
        if problem and name not in self._problems:
            logger.warning(
                "access: %s cannot be exchanged with the store, the last known stay in force: %s", name, problem
            )
            self._problems.add(name)
        elif not problem and name in self._problems:
            self._problems.remove(name)
            logger.info("access: %s are exchanged with the store again", name)


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"the store took longer than {seconds:g} s (access.store_timeout_s)") from error

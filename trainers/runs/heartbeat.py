"""An attempt's sign of life in the store, and its ears: whether the run is cancelled or another attempt has taken over.

A store that does not answer costs heartbeats and nothing else. What to do when asked to stop is the caller's business: callbacks
run on the event loop and must not block.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable

from gateway.contract import codec, layout
from gateway.contract.runs import Heartbeat
from gateway.errors import ObjectNotFound, PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from trainers.runs import beside, reading
from trainers.runs.progress import Tracker
from trainers.runs.records import Attempt

INTERVAL_S = 30.0
"""Two writes a minute cost a cent a day on S3, and a spot notice leaves time for three of them."""

LAST_BEAT_S_MAX = 5.0
"""A process that ends has a grace period for more important things."""

log = logging.getLogger(__name__)


class Beating:
    """`async with Beating(...)`: beats once before the block begins, then every interval, and once more at its end."""

    def __init__(
        self,
        store: ObjectStore,
        attempt: Attempt,
        tracker: Tracker,
        *,
        on_cancel: Callable[[str], None],
        on_fenced: Callable[[str], None],
        interval_s: float = INTERVAL_S,
        sample: Callable[[], float | None] = lambda: None,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`on_cancel` and `on_fenced` get a sentence, once each. `sample` measures utilisation, in a thread."""
        self._store = store
        self._attempt = attempt
        self._tracker = tracker
        self._callbacks = {"cancel": on_cancel, "fenced": on_fenced}
        self._interval_s = interval_s
        self._sample = sample
        self._now_ns = now_ns
        self._sleep = sleep
        self._etag: str | None = None
        self._is_unheard = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Beating":
        await self.beat()
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await beside.ended(self._task, self.beat, within_s=LAST_BEAT_S_MAX)

    async def beat(self) -> None:
        """One look and one sign, before the next is due. What fails is logged, once until it works again."""
        try:
            async with asyncio.timeout(self._interval_s):
                self._tracker.utilisation(await asyncio.to_thread(self._sample))
                await self._listen()
                await self._write()
        except Exception as error:  # whatever it is: no sign of life is worth a training run
            if not self._is_unheard:
                log.warning("the heartbeat of run %s cannot be written: %r", self._attempt.run.run_id, error)
            self._is_unheard = True
        else:
            self._is_unheard = False

    async def _go_on(self) -> None:
        while True:
            await self._sleep(self._interval_s)
            await self.beat()

    async def _listen(self) -> None:
        cancellation = await reading.cancellation(self._store, self._attempt.run.run_id)
        if cancellation:
            self._call("cancel", f"cancelled by {cancellation.actor}")

    async def _write(self) -> None:
        body = codec.encode(self._heartbeat())
        key = layout.heartbeat(self._attempt.run.run_id)
        try:
            if self._etag is None:
                self._etag = await self._take_over(key, body)
            else:
                self._etag = await self._store.put_if_match(key, body, self._etag)
        except PreconditionFailed:
            self._etag = await self._take_over(key, body)

    async def _take_over(self, key: str, body: bytes) -> str | None:
        """Replace an earlier attempt's heartbeat, or our own whose answer got lost; a later attempt's means that we are stale."""
        try:
            stored = await self._store.get(key)
        except ObjectNotFound:
            with contextlib.suppress(PreconditionFailed):
                return await self._store.put_if_absent(key, body)
            return None  # somebody was quicker: the next beat sees who
        attempt = codec.decode(stored.body, Heartbeat).attempt
        if attempt > self._attempt.number:
            self._call("fenced", f"attempt {attempt} of run '{self._attempt.run.run_id}' has taken over")
            return None
        with contextlib.suppress(PreconditionFailed):
            return await self._store.put_if_match(key, body, stored.etag)
        return None

    def _heartbeat(self) -> Heartbeat:
        now = self._tracker.now()
        return Heartbeat(
            run_id=self._attempt.run.run_id,
            attempt=self._attempt.number,
            at_ns=self._now_ns(),
            interval_ns=max(1, round(self._interval_s * 1e9)),
            elapsed_ns=now.elapsed_ns,
            stage=now.stage,
            step=now.step,
            steps_total=now.steps_total,
            progress=now.progress,
            loss=now.loss if now.loss is not None and math.isfinite(now.loss) else None,
            examples_per_s=now.examples_per_s,
        )

    def _call(self, what: str, sentence: str) -> None:
        callback = self._callbacks.pop(what, None)
        if callback:
            callback(sentence)

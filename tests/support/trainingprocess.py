"""A program that opens an attempt, takes steps, saves some, and beats, until somebody kills it. `tests.integration` does.

python -m tests.support.trainingprocess STORE: prints one line of JSON after each heartbeat that is in the store.
"""

import asyncio
import sys

from gateway.contract.runs import Heartbeat
from gateway.objectstore.opening import open_store
from tests.support import trainingruns
from trainers.runs import reading
from trainers.runs.heartbeat import Beating
from trainers.runs.journal import Journal
from trainers.runs.progress import Tracker

STEPS_PER_BEAT = 10
SAVED_BEHIND = 3


async def train(url: str) -> None:
    """Ends only when it is cancelled or fenced."""
    store, stopped = open_store(url), asyncio.Event()
    attempt = await trainingruns.opened(store)
    tracker = Tracker()

    def stop(sentence: str) -> None:
        print(sentence, flush=True)  # noqa: T201 - its output is what the test reads
        stopped.set()

    beating = Beating(store, attempt, tracker, on_cancel=stop, on_fenced=stop, interval_s=3600)
    async with beating, Journal(store, attempt.run.run_id, attempt.number) as journal:
        with tracker.stage("train"):
            step = attempt.before.kept_step
            tracker.steps_begin(step, total=1_000_000)
            while not stopped.is_set():
                step += STEPS_PER_BEAT
                tracker.step(step, examples=STEPS_PER_BEAT)
                tracker.saved(step - SAVED_BEHIND)
                journal.log(f"step {step}")
                await journal.flush()
                await beating.beat()
                beat = await reading.heartbeat(store, attempt.run.run_id)
                assert isinstance(beat, Heartbeat)
                print(f"{beat.attempt} {beat.step}", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(train(sys.argv[1]))

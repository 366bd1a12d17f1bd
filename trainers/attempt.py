"""One attempt at a run, from its claim to its end: who it is, its signs of life, its ears for signals, notices and cancellation.

`attending` is entered once by `trainers.run`. However the block ends, the attempt's record says how, and what it cost. What may be
asked of the attempt while it lasts is in `Attending`.
"""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.contract.manifest import TrainingCost
from gateway.contract.prices import PriceBook
from gateway.contract.runs import AttemptEnd, Outcome, RunRecord
from gateway.contract.words import Market
from gateway.errors import GatewayError
from gateway.objectstore.protocol import ObjectStore
from trainers import exits
from trainers.errors import Cancelled, Fenced, Preempted, SpecError, TrainerError
from trainers.fit.keeping import Stops
from trainers.interruption import signals, spot
from trainers.interruption.signals import Interruption
from trainers.job import Report
from trainers.runs import machine, nvml, reading, records, scratch, settle
from trainers.runs.cputime import CpuTime
from trainers.runs.heartbeat import Beating
from trainers.runs.journal import Journal, LogHandler
from trainers.runs.machine import Machine, Placement, Utilisation
from trainers.runs.progress import Tracker
from trainers.runs.records import Attempt
from trainers.runs.stages import Stages

CPU_SKU = "c7i.large"
"""What a CPU job is priced as unless told otherwise: the smallest current machine with the two vCPUs that the examples need."""

UNKNOWN_SKU = "unknown"
"""No GPU is so usual that its price could be assumed."""

VENDOR = Path("/sys/class/dmi/id/sys_vendor")
AMAZON = "Amazon EC2"

MARKETS: dict[str, Market] = {"spot": "spot", "on-demand": "on_demand"}

log = logging.getLogger("trainers")

T = TypeVar("T")


class Attending(msgspec.Struct, frozen=True):
    """What a run may ask of its attempt."""

    attempt: Attempt
    tracker: Tracker
    journal: Journal
    stops: Stops
    stages: Stages

    def watched(self, report: Report) -> Report:
        """The same report, by which a stage that cannot save anything notices that it must end.

        Steps that are over are in the run's log too: on a machine that nobody watches it is all there is.
        """

        def told(step: str, done: int, total: int, note: str = "") -> None:
            report(step, done, total, note)
            if done == total:
                self.journal.log(f"{step} is done{f': {note}' if note else ''}")
            if step != "fit":  # which asks after every step, and can save
                self.require_going_on()

        return told

    def require_going_on(self) -> None:
        """Raises `Fenced`, `Cancelled` or `Preempted`."""
        self.stops.require_none()
        if self.stops.interruption.is_requested:
            raise Preempted(f"{self.stops.interruption.reason}; the same run id goes on from the last finished stage")

    async def require_newest(self, store: ObjectStore) -> None:
        """Before anything is published. Raises as `require_going_on`."""
        self.require_going_on()
        newest = (await reading.tried(store, self.attempt.run.run_id))[-1].attempt.attempt
        if newest > self.attempt.number:
            raise Fenced(
                f"attempt {newest} of run '{self.attempt.run.run_id}' has taken over; this one publishes nothing"
            )

    async def stopped_when_cancelled(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`, which a cancellation does not end: it asks the thread that trains to stop, and to save what it can."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.stops.interruption.request("cancelled")
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen; the cancellation is what the caller hears
            raise

    def cost(self) -> TrainingCost:
        """Of all attempts so far, this one as if it ended now."""
        mine = settle.end(
            self.attempt.record,
            self.attempt.before,
            self.tracker.now().progress,
            outcome="done",
            exit_code=exits.DONE,
            message="",
            ended_ns=self.attempt.record.started_ns + self.tracker.elapsed_ns,
            elapsed_ns=self.tracker.elapsed_ns,
        )
        return settle.training_cost([*self.attempt.tried, (self.attempt.record, mine)])


@contextlib.asynccontextmanager
async def attending(
    store: ObjectStore,
    run: RunRecord,
    *,
    folder: Path,
    book: PriceBook,
    priced_as: str | None,
) -> AsyncIterator[Attending]:
    """Claim the next attempt, and close it however the block ends. Raises `SpecError`, `Cancelled` and store errors."""
    if priced_as is not None and ((price := book.price(priced_as)) is None or price.unit != "hour"):
        raise SpecError(  # a slip would only be noticed in a bill that says "unpriced"
            f"--priced-as: the price book has none for '{priced_as}' per hour; name a machine type that it prices, such as "
            "c7i.large or g5.xlarge, or leave the option out"
        )
    interruption = Interruption()
    here = await asyncio.to_thread(machine.this)
    placement = await _placement(here)
    tracker = Tracker(energy_nj=nvml.Used(nvml.of_machine() if here.gpus else None), cpu_ns=CpuTime())
    sku = priced_as or sku_of(here, placement, book)
    attempt = await records.open_attempt(store, run, machine=here, placement=placement, sku=sku, book=book)
    stops = Stops(interruption)
    log.info("run %s, attempt %d", run.run_id, attempt.number)
    utilisation = Utilisation(here)
    beating = Beating(
        store,
        attempt,
        tracker,
        on_cancel=lambda sentence: setattr(stops, "cancelled", sentence),
        on_fenced=lambda sentence: setattr(stops, "fenced", sentence),
        sample=utilisation.sample,
    )
    journal = Journal(store, run.run_id, attempt.number)
    watching = asyncio.create_task(spot.watch(interruption, log.info)) if placement.market == "spot" else None
    try:
        with signals.handled(interruption, asyncio.get_running_loop()):
            async with journal, beating:
                with (
                    _logged(journal, f"attempt {attempt.number} begins on {sku}"),
                    scratch.own(folder, attempt.number) as mine,
                ):
                    yield Attending(attempt, tracker, journal, stops, Stages(store, attempt, mine, tracker))
    except BaseException as error:
        await asyncio.shield(_close(store, attempt, tracker, error))
        raise
    else:
        ended: Outcome = "budget" if stops.is_budget_spent else "done"
        code = exits.BUDGET if ended == "budget" else exits.DONE
        said = exits.MEANING[code] if ended == "budget" else ""
        await _close_as(store, attempt, tracker, ended, code, said)
    finally:
        if watching:
            watching.cancel()


async def _close(store: ObjectStore, attempt: Attempt, tracker: Tracker, error: BaseException) -> None:
    """A store that is away must not hide why the run failed: the next attempt settles this one."""
    try:
        message = str(error) or type(error).__name__
        await _close_as(store, attempt, tracker, _outcome(error), exits.code_of(error), message)
    except Exception as unwritten:  # whatever it is, the error that is on its way is the one to hear about
        log.warning("how attempt %d ended could not be recorded: %s", attempt.number, unwritten)


async def _close_as(
    store: ObjectStore, attempt: Attempt, tracker: Tracker, outcome: Outcome, code: int, message: str
) -> AttemptEnd:
    return await records.close_attempt(
        store,
        attempt,
        outcome=outcome,
        exit_code=code,
        message=message,
        progress=tracker.now().progress,
        elapsed_ns=tracker.elapsed_ns,
    )


def _outcome(error: BaseException) -> Outcome:
    kinds: dict[type[BaseException], Outcome] = {
        Preempted: "preempted",
        KeyboardInterrupt: "preempted",
        asyncio.CancelledError: "preempted",  # the lease of a schedule was lost
        Fenced: "fenced",
        Cancelled: "cancelled",
    }
    return next((outcome for kind, outcome in kinds.items() if isinstance(error, kind)), "failed")


def sku_of(here: Machine, placement: Placement, book: PriceBook) -> str:
    if placement.instance and book.price(placement.instance):
        return placement.instance
    return UNKNOWN_SKU if here.gpus else CPU_SKU


async def _placement(here: Machine) -> Placement:
    """Asked of the metadata service only where there is one: elsewhere it takes seconds to find that out."""
    if here.platform != "aws-batch" and not await asyncio.to_thread(_is_amazon):
        return Placement()
    found = await spot.describe()
    if found is None:
        return Placement()
    return Placement(instance=found.instance_type, zone=found.zone, market=MARKETS.get(found.market, "unknown"))


def _is_amazon() -> bool:
    try:
        return VENDOR.read_text().strip() == AMAZON
    except OSError:
        return False


@contextlib.contextmanager
def _logged(journal: Journal, opening: str) -> Iterator[None]:
    """What `trainers` logs, how it began, and how it ended: of a defect the traceback, which a lost machine shows to nobody."""
    journal.log(opening)
    handler = LogHandler(journal)
    logger = logging.getLogger("trainers")
    logger.addHandler(handler)
    try:
        yield
    except (TrainerError, GatewayError) as error:
        journal.log(f"ended: {error}")
        raise
    except Exception:
        journal.log(traceback.format_exc())
        raise
    else:
        journal.log("the attempt is over")
    finally:
        logger.removeHandler(handler)

"""Training runs for tests: what a recipe would ask for, machines, and attempts that go through the store as real ones do."""

import msgspec

from gateway.contract import prices
from gateway.contract.runs import AttemptEnd, AttemptRecord, Outcome, Progress, RunRecord
from gateway.objectstore.protocol import ObjectStore
from trainers.runs import reading, records
from trainers.runs.machine import Machine, Placement
from trainers.runs.records import Attempt

NOW_NS = 1_790_000_000_000_000_000
S = 10**9
SKU = "g4dn.xlarge"
USD_PER_HOUR = "0.526"
BOX = Machine(cpu="Test CPU @ 2.00GHz", cpus=4, gpu="Tesla T4", gpus=1, platform="local")
SPOT = Placement(instance="g4dn.xlarge", zone="us-east-1a", market="spot", usd_per_hour="0.1578")

RUN = RunRecord(
    run_id="flights-1",
    recipe="flights",
    model="flights",
    seed=7,
    parameters={"epochs": 3.0, "learning_rate": 0.001},
    spec_sha256="ab" * 32,
    actor="anna",
    created_ns=NOW_NS,
    arguments=("--seed", "7"),
)


def run(run_id: str, **changes: object) -> RunRecord:
    return msgspec.structs.replace(RUN, run_id=run_id, **changes)


def attempt(number: int = 1, *, usd_per_hour: str | None = USD_PER_HOUR) -> AttemptRecord:
    return AttemptRecord(
        run_id=RUN.run_id,
        attempt=number,
        started_ns=NOW_NS,
        cpu=BOX.cpu,
        cpus=BOX.cpus,
        gpu=BOX.gpu,
        gpus=BOX.gpus,
        platform="aws-batch",
        job="job-1",
        job_attempt=number,
        instance="g4dn.xlarge",
        zone="us-east-1a",
        market="spot",
        sku=SKU,
        usd_per_hour=usd_per_hour,
        price_book_sha256=prices.load().sha256,
    )


async def opened(
    store: ObjectStore,
    asked: RunRecord = RUN,
    *,
    at_ns: int = NOW_NS,
    placement: Placement = SPOT,
    sku: str = SKU,
    machine: Machine = BOX,
) -> Attempt:
    return await records.open_attempt(
        store, asked, machine=machine, placement=placement, sku=sku, book=prices.load(), now_ns=lambda: at_ns
    )


async def closed(
    store: ObjectStore,
    attempt: Attempt,
    outcome: Outcome = "done",
    progress: Progress = Progress(step_last=10, step_saved=10, steps_ns=50 * S),  # noqa: B008 - frozen
    *,
    at_ns: int = NOW_NS + 60 * S,
    exit_code: int = 0,
    message: str = "",
    elapsed_ns: int = 60 * S,
) -> AttemptEnd:
    return await records.close_attempt(
        store,
        attempt,
        outcome=outcome,
        exit_code=exit_code,
        message=message,
        progress=progress,
        elapsed_ns=elapsed_ns,
        now_ns=lambda: at_ns,
    )


async def interrupted(store: ObjectStore) -> tuple[reading.Tried, ...]:
    """Preempted at step 50 with 40 of them saved, then done on another machine: 10 steps and one start are wasted."""
    half = Progress(step_last=50, step_saved=40, steps_ns=50 * S)
    rest = Progress(step_first=40, step_last=100, step_saved=100, steps_ns=60 * S)
    await closed(store, await opened(store), "preempted", half, exit_code=143, message="SIGTERM")
    await closed(store, await opened(store, placement=Placement()), "done", rest, elapsed_ns=70 * S)
    return await reading.tried(store, RUN.run_id)

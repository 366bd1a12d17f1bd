"""A training run's records: what was asked, who tried on which machine, how it went, and what each attempt cost.

`run.json` and an attempt's claim, end and charge are created once and never change; the heartbeat alone is replaced. Written by
`trainers.runs`. Money is pico-dollars (1e-12 USD), moments are nanoseconds since the Unix epoch by the writer's clock, durations
are nanoseconds of a clock that nobody sets. A step is one update of the weights, counted over the whole run.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.contract.prices import Decimal
from gateway.contract.words import Count, FileName, Market, Name, Positive, Sha256

RunId = Name
Stage = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$(?!\n)")]
Outcome = Literal["done", "failed", "preempted", "budget", "fenced", "cancelled", "lost"]
"""`lost`: killed without a word, and recorded by whoever came next."""

Evidence = Literal["end", "heartbeat", "claim"]
"""What a record of an attempt's end rests on: its own word, its last heartbeat, or nothing after its claim."""


class Allotment(msgspec.Struct, frozen=True):
    """What an attempt may use of its machine, its container's limits where it has any. "" is unknown."""

    processor: Literal["x86", "arm", ""]
    vcpu_milli: Positive
    memory_bytes: Positive
    region: str = ""


class MachineUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attempt held and what of it worked: joules and grams are made of this, by whatever coefficients one has.

    `gpu` is its name as NVIDIA's driver tells it; `gpu_busy_ns` and `gpu_energy_nj` (as NVML counts it) are of all `gpus` together,
    None where nobody measured.
    """

    allotted: Allotment
    held_ns: Count
    cpu_ns: Count
    gpu: str = ""
    gpus: Count = 0
    gpu_busy_ns: Count | None = None
    gpu_energy_nj: Count | None = None


class RunRecord(msgspec.Struct, frozen=True):
    """`run.json`: what was asked. `arguments` are the options of `steelyard train` that ask for it again.

    `spec_sha256` is the digest of the complete job, so that one run id never stands for two things.
    """

    run_id: RunId
    recipe: str
    model: Name
    seed: int
    parameters: dict[str, str | float | bool]
    spec_sha256: Sha256
    actor: str
    created_ns: Count
    arguments: tuple[str, ...] = ()
    schema_version: int = 1


class AttemptRecord(msgspec.Struct, frozen=True):
    """`attempts/<n>.json`: the claim. `attempt` ascends, so it fences: who holds a lower one must stop.

    `job` and `job_attempt` are the environment's own names for it (AWS Batch, a Kubernetes pod); "" and None where there are none.
    `usd_per_hour` is None where no price is known, and then no cost is. `allotted` is unset in records of before it existed.
    """

    run_id: RunId
    attempt: Positive
    started_ns: Count
    cpu: str
    cpus: Positive
    gpu: str
    gpus: Count
    platform: str
    job: str
    job_attempt: Count | None
    instance: str
    zone: str
    market: Market
    sku: str
    usd_per_hour: Decimal | None
    price_book_sha256: Sha256
    schema_version: int = 1
    allotted: Allotment | UnsetType = UNSET


class Progress(msgspec.Struct, frozen=True):
    """How far an attempt has come. Steps are [first, last) of the run; those below `step_saved` survive it.

    `steps_ns` went into steps and into saving them, `stages_ns` into the other stages it finished (`stages`), `cut_off_ns` into one
    that is not finished. What is left of its time is overhead: starting, loading, reading what earlier attempts left.
    """

    step_first: Count = 0
    step_last: Count = 0
    step_saved: Count = 0
    steps_ns: Count = 0
    stages: tuple[Stage, ...] = ()
    stages_ns: Count = 0
    cut_off_ns: Count = 0
    examples: Count = 0
    utilisation: float | None = None
    """Mean over the attempt, 0 to 1: of the GPU, or of all CPUs where there is none."""
    energy_nj: Count | UnsetType = UNSET
    """Of all the machine's GPUs since the attempt began, as NVML counts it; unset where nobody counts."""
    cpu_ns: Count | UnsetType = UNSET
    """Of all processes that train since the attempt began; unset in records of before it existed."""

    def __post_init__(self) -> None:
        if not self.step_first <= self.step_last or self.step_saved > self.step_last:
            raise ValueError(f"steps {self.step_first} to {self.step_last}, saved {self.step_saved}, are out of order")


class Heartbeat(msgspec.Struct, frozen=True):
    """`heartbeat.json`: the newest attempt's sign of life. `interval_ns` is when the next one is due."""

    run_id: RunId
    attempt: Positive
    at_ns: Count
    interval_ns: Positive
    elapsed_ns: Count
    stage: str
    step: Count
    steps_total: Count
    progress: Progress
    loss: float | None = None
    examples_per_s: float | None = None
    schema_version: int = 1


class AttemptEnd(msgspec.Struct, frozen=True):
    """`attempts/<n>-end.json`: how it ended and what it cost.

    `kept_step` is the highest step that this attempt or an earlier one saved. `steps_lost` of its `steps_done` moved that no
    further: they have to be, or were, done twice. `wasted_ns` is the time of those, of a stage cut off, and of the overhead that a
    run without interruption has once. Costs are None where there is no price.
    """

    run_id: RunId
    attempt: Positive
    outcome: Outcome
    exit_code: int
    message: str
    ended_ns: Count
    elapsed_ns: Count
    progress: Progress
    kept_step: Count
    steps_done: Count
    steps_lost: Count
    wasted_ns: Count
    cost_picousd: Count | None
    wasted_picousd: Count | None
    evidence: Evidence = "end"
    schema_version: int = 1

    def __post_init__(self) -> None:
        if self.steps_lost > self.steps_done or self.wasted_ns > self.elapsed_ns:
            raise ValueError(f"attempt {self.attempt} lost more than it did")
        if (self.wasted_picousd or 0) > (self.cost_picousd or 0):
            raise ValueError(f"attempt {self.attempt} wasted more than it cost")


class Cancellation(msgspec.Struct, frozen=True):
    """`cancel.json`: no attempt of this run goes on. It is deleted when the run is resumed."""

    run_id: RunId
    actor: str
    reason: str
    requested_ns: Count
    schema_version: int = 1


class StageFile(msgspec.Struct, frozen=True):
    """One result of a stage; its bytes are the run's blob of this digest."""

    name: FileName
    sha256: Sha256
    size: Count


class StageRecord(msgspec.Struct, frozen=True):
    """`stages/<stage>/<key>.json`: what a stage made of the inputs whose digest is `key`. Written after its files."""

    run_id: RunId
    stage: Stage
    key: Sha256
    attempt: Positive
    finished_ns: Count
    elapsed_ns: Count
    files: tuple[StageFile, ...]
    schema_version: int = 1

    def __post_init__(self) -> None:
        names = [file.name.lower() for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError(f"stage '{self.stage}' has two files of one name: {sorted(names)}")


class MetricLine(msgspec.Struct, frozen=True):
    """One line of a `metrics/` segment. A number that is none (NaN, infinite) is stored as null."""

    at_ns: Count
    step: Count
    values: dict[str, float | None]


class TrainingCharge(msgspec.Struct, frozen=True):
    """`ledger/v1/training/<run>/<attempt>.json`: one attempt's money. Sums over a run are its training cost and waste.

    `use` is unset where the attempt's record does not say enough, as before it existed.
    """

    run_id: RunId
    attempt: Positive
    model: Name
    recipe: str
    from_ns: Count
    to_ns: Count
    elapsed_ns: Count
    platform: str
    instance: str
    zone: str
    market: Market
    sku: str
    usd_per_hour: Decimal | None
    price_book_sha256: Sha256
    outcome: Outcome
    steps_done: Count
    steps_lost: Count
    wasted_ns: Count
    cost_picousd: Count | None
    wasted_picousd: Count | None
    evidence: Evidence
    energy_nj: Count | UnsetType = UNSET
    schema_version: int = 1
    use: MachineUse | UnsetType = UNSET

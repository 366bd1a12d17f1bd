"""AWS Batch by moto's server through our launcher and supervisor: payloads byte for byte, idempotence, refusals, rescue of runs."""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.contract import codec, layout
from gateway.contract.schedules import Submission
from gateway.errors import StoreUnavailable
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import batches, specs
from tests.support.batches import SITE, Cloud
from trainers.errors import LauncherUnavailable, SpecError
from trainers.launch import batch_payloads, environment, site
from trainers.launch.aws_batch import AwsBatch
from trainers.launch.launcher import Order
from trainers.launch.supervisor import Decision, Supervisor
from trainers.spec import reading
from trainers.spec.jobspec import JobSpec

GOLDEN = Path("tests/contract/golden/launch")
STORE = "s3://models/steelyard"
NOW_S = 1_764_072_000


@pytest.fixture
def cloud(batch_server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    return batches.emptied(batch_server, monkeypatch)


@pytest.fixture
def batch(cloud: Cloud) -> AwsBatch:
    return AwsBatch(SITE, clock=lambda: NOW_S)


def full(**options: Any) -> JobSpec:
    return reading.parse(specs.toml(specs.full()), source="job.toml", options=options)


def order(run_id: str = "flights-delay-1", **options: Any) -> Order:
    return Order(spec=full(**options), run_id=run_id, store=STORE)


# --- payloads


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


def test_the_same_spec_is_the_same_payloads() -> None:
    definition = batch_payloads.definition(
        full(), msgspec.structs.replace(SITE, job_role_arn="arn:job", log_group="/x")
    )
    submission = batch_payloads.submission(
        full(), run_id="flights-delay-1", store=STORE, definition_arn="arn:d:1", queue="q", first_submitted_s=NOW_S
    )
    assert json.dumps(definition, indent=1) + "\n" == golden("batch-definition-v1.json")
    assert json.dumps(submission, indent=1) + "\n" == golden("batch-submission-v1.json")


def test_the_definition_is_what_the_reference_says() -> None:
    definition = batch_payloads.definition(full(), SITE)
    assert definition["retryStrategy"] == {
        "attempts": 10,
        "evaluateOnExit": [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onExitCode": "75", "action": "RETRY"},
            {"onExitCode": "143", "action": "RETRY"},
            {"onReason": "CannotPullContainer*", "action": "RETRY"},
            {"onReason": "*", "action": "EXIT"},
        ],
    }
    assert definition["timeout"] == {"attemptDurationSeconds": 6 * 3600 * 11 // 10}
    assert definition["propagateTags"] is True
    container = definition["containerProperties"]
    assert {"type": "GPU", "value": "1"} in container["resourceRequirements"]
    assert {"type": "MEMORY", "value": "15872"} in container["resourceRequirements"]
    assert container["linuxParameters"]["sharedMemorySize"] == 4096


@pytest.mark.parametrize("text", ["a.b", "a-b", "x" * 200, "é"])
def test_names_that_batch_cannot_hold_stay_different(text: str) -> None:
    name = batch_payloads.batch_name(text)
    assert len(name) <= 128
    assert name.isascii()
    assert batch_payloads.batch_name("a.b") != batch_payloads.batch_name("a-b")


# --- starting


def test_a_run_is_submitted_with_all_it_needs(cloud: Cloud, batch: AwsBatch) -> None:
    started = batch.start(order())
    (job,) = cloud.jobs(batches.SPOT)
    assert (job["jobId"], job["jobName"]) == (started.job, "steelyard-flights-delay-1-1")
    assert job["tags"]["steelyard:run"] == "flights-delay-1"
    environ = {pair["name"]: pair["value"] for pair in job["container"]["environment"]}
    assigned = environment.assignment(environ | {"AWS_BATCH_JOB_ATTEMPT": "2"})
    assert assigned is not None
    assert (assigned.spec, assigned.run_id, assigned.store, assigned.attempt) == (full(), "flights-delay-1", STORE, 2)
    assert assigned.job == started.job
    assert any("disk_gb" in note for note in started.notes)
    assert started.is_submitted
    assert started.exit_code is None


def test_asking_twice_starts_it_once(cloud: Cloud, batch: AwsBatch) -> None:
    first, second = batch.start(order()), batch.start(order())
    assert first.job == second.job
    assert "was submitted already" in second.notes[0]
    assert len(cloud.jobs(batches.SPOT)) == 1


def test_a_definition_is_registered_once_for_the_same_content(cloud: Cloud, batch: AwsBatch) -> None:
    payload = batch_payloads.definition(full(), SITE)
    other = batch_payloads.definition(full(**{"limits.attempt": "5h"}), SITE)
    arns = [batch.register(payload), batch.register(payload), batch.register(other), batch.register(payload)]
    assert arns[0] == arns[1] == arns[3] != arns[2]
    assert len(cloud.client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]) == 2


def test_on_demand_goes_to_its_queue(cloud: Cloud, batch: AwsBatch) -> None:
    batch.start(order(market={"prefer": "on_demand"}))
    assert (len(cloud.jobs(batches.SPOT)), len(cloud.jobs(batches.ON_DEMAND))) == (0, 1)


def test_status_and_cancel(cloud: Cloud, batch: AwsBatch) -> None:
    job = batch.start(order()).job
    assert batch.status(job).status == "succeeded"
    cloud.happened(job, "RUNNING")
    assert batch.status(job).status == "running"
    batch.cancel(job, "no longer needed")
    assert batch.status(job).reason == "no longer needed"
    with pytest.raises(SpecError, match="knows no job 00000000"):
        batch.status("00000000-0000-0000-0000-000000000000")


# --- refusing, with nothing submitted


@pytest.mark.parametrize(
    ("options", "store", "why"),
    [
        ({"image": "registry/train:latest"}, STORE, "has no digest"),
        ({}, "./store", "needs a bucket"),
        ({"recipe": "flihgts"}, STORE, "no recipe 'flihgts'"),
        ({"recipe": "no.such:thing"}, STORE, "no.such"),
        ({"recipe": "tests.support.tinyjob:nothing"}, STORE, "has no function 'nothing'"),
        ({"data": [{"name": "a", "uri": "/home/x.csv"}]}, STORE, "is on this machine"),
    ],
)
def test_what_cannot_run_there_is_refused_before_anything_is_registered(
    cloud: Cloud, batch: AwsBatch, options: dict[str, Any], store: str, why: str
) -> None:
    with pytest.raises(SpecError, match=why):
        batch.start(Order(spec=full(**options), run_id="run-1", store=store))
    assert cloud.client("batch").describe_job_definitions()["jobDefinitions"] == []


def test_a_missing_image_is_refused(cloud: Cloud, batch: AwsBatch) -> None:
    spec = reading.from_options({"recipe": "flights"})
    with pytest.raises(SpecError, match="`image` is missing"):
        batch.start(Order(spec=spec, run_id="run-1", store=STORE))


def test_a_missing_queue_names_the_variable(cloud: Cloud) -> None:
    with pytest.raises(SpecError, match="set STEELYARD_BATCH_QUEUE_ON_DEMAND to the queue for"):
        AwsBatch(msgspec.structs.replace(SITE, queue_on_demand="")).start(order())
    with pytest.raises(SpecError, match="set STEELYARD_BATCH_QUEUE_SPOT"):
        AwsBatch(site.batch({"STEELYARD_BATCH_QUEUE_ON_DEMAND": "x"})).start(order())


def test_a_queue_that_is_not_there_is_a_wrong_setting(cloud: Cloud) -> None:
    with pytest.raises(SpecError, match="Job queue nowhere does not exist"):
        AwsBatch(msgspec.structs.replace(SITE, queue_spot="nowhere")).start(order())


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(SpecError, match="STEELYARD_BATCH_QUEUE is unknown"):
        site.batch({"STEELYARD_BATCH_QUEUE": "x"})


def test_no_credentials_no_region_no_answer(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(LauncherUnavailable, match="now: Could not connect"):
        AwsBatch(SITE).start(order())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SpecError, match="there are no AWS credentials"):
        AwsBatch(SITE).start(order())
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SpecError, match="set AWS_REGION"):
        AwsBatch(SITE)


# --- supervising

HOST_GONE = [{"container": {"reason": ""}, "statusReason": "Host EC2 (instance i-0123) terminated."}]


class Steps:
    """A `Progress` that is told, or that fails as a store does."""

    def __init__(self, *steps: int, fails: bool = False) -> None:
        self.steps, self.fails, self.asked = steps, fails, list[str]()

    async def steps_reached(self, run_id: str) -> Sequence[int]:
        self.asked.append(run_id)
        if self.fails:
            raise StoreUnavailable("the store does not answer")
        return self.steps


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def rounds(batch: AwsBatch, store: ObjectStore, steps: Steps, *, at_s: float = NOW_S + 60) -> list[Decision]:
    return asyncio.run(Supervisor(batch, SITE, store, steps, store_url=STORE).round(at_s))


def used_up(cloud: Cloud, batch: AwsBatch) -> str:
    job = batch.start(order()).job
    cloud.happened(job, "FAILED", attempts=HOST_GONE * 10)
    return job


def test_a_run_with_ten_attempts_used_goes_on_under_the_same_name(
    cloud: Cloud, batch: AwsBatch, store: ObjectStore
) -> None:
    used_up(cloud, batch)
    (decision,) = rounds(batch, store, Steps(10, 20, 30))
    assert (decision.kind, decision.run_id) == ("resubmit", "flights-delay-1")
    first, second = sorted(cloud.jobs(batches.SPOT), key=lambda job: job["jobName"])
    assert second["tags"]["steelyard:submission"] == "2"
    assert second["jobDefinition"] == first["jobDefinition"]
    assert second["tags"]["steelyard:first-submitted"] == str(NOW_S)
    environ = {pair["name"]: pair["value"] for pair in second["container"]["environment"]}
    assigned = environment.assignment(environ | {"AWS_BATCH_JOB_ATTEMPT": "1"})
    assert assigned is not None
    assert (assigned.run_id, assigned.attempt) == ("flights-delay-1", 11)
    assert rounds(batch, store, Steps(10, 20, 30)) == []
    assert len(cloud.jobs(batches.SPOT)) == 2


def test_two_supervisors_resubmit_once(cloud: Cloud, batch: AwsBatch, store: ObjectStore) -> None:
    used_up(cloud, batch)

    async def both() -> list[list[Decision]]:
        pair = [Supervisor(batch, SITE, store, Steps(1, 2, 3), store_url=STORE) for _ in range(4)]
        return await asyncio.gather(*(supervisor.round(NOW_S + 60) for supervisor in pair))

    made = asyncio.run(both())
    assert sum(len(decisions) for decisions in made) == 1
    assert len(cloud.jobs(batches.SPOT)) == 2


def test_a_run_that_does_not_get_on_is_given_up_and_said_once(
    cloud: Cloud, batch: AwsBatch, store: ObjectStore
) -> None:
    used_up(cloud, batch)
    (decision,) = rounds(batch, store, Steps(10, 10, 10, 10))
    assert decision.kind == "give-up"
    record = codec.decode(asyncio.run(store.get(layout.submission("flights-delay-1", 2))).body, Submission)
    assert (record.decision, record.job) == ("give-up", "")
    assert rounds(batch, store, Steps(10, 10, 10, 10), at_s=NOW_S + 2 * 3600) == []
    assert len(cloud.jobs(batches.SPOT)) == 1


def test_a_claim_whose_maker_died_is_taken_over_later(cloud: Cloud, batch: AwsBatch, store: ObjectStore) -> None:
    used_up(cloud, batch)
    dead = Submission(run_id="flights-delay-1", number=2, decision="resubmit", reason="", decided_ns=NOW_S * 10**9)
    asyncio.run(store.put_if_absent(layout.submission("flights-delay-1", 2), codec.encode(dead)))
    assert rounds(batch, store, Steps(1, 2, 3), at_s=NOW_S + 3_599) == []
    (decision,) = rounds(batch, store, Steps(1, 2, 3), at_s=NOW_S + 3_600)
    assert decision.kind == "resubmit"
    assert len(cloud.jobs(batches.SPOT)) == 2


def test_a_run_that_was_given_up_can_be_started_again_and_is_looked_after_again(
    cloud: Cloud, batch: AwsBatch, store: ObjectStore
) -> None:
    first = used_up(cloud, batch)
    assert rounds(batch, store, Steps(5, 5, 5, 5))[0].kind == "give-up"
    later = AwsBatch(SITE, clock=lambda: NOW_S + 7_200)
    second = later.start(order()).job
    assert second != first
    names = sorted(job["jobName"] for job in cloud.jobs(batches.SPOT))
    assert names == ["steelyard-flights-delay-1-1", "steelyard-flights-delay-1-2"]
    cloud.happened(second, "FAILED", attempts=HOST_GONE * 10)
    (decision,) = rounds(later, store, Steps(5, 5, 5, 5, 6, 7), at_s=NOW_S + 7_300)
    assert decision.kind == "resubmit"


def test_a_queue_named_by_its_arn_is_the_same_queue(cloud: Cloud, batch: AwsBatch, store: ObjectStore) -> None:
    arn = cloud.client("batch").describe_job_queues(jobQueues=[batches.ON_DEMAND])["jobQueues"][0]["jobQueueArn"]
    site_by_arn = msgspec.structs.replace(SITE, queue_on_demand=arn)
    job = batch.start(order()).job
    cloud.happened(job, "RUNNABLE")
    supervisor = Supervisor(batch, site_by_arn, store, Steps(), store_url=STORE)
    late_s = time.time() + 90_000
    assert [decision.kind for decision in asyncio.run(supervisor.round(late_s))] == ["move"]
    cloud.happened(cloud.jobs(batches.ON_DEMAND)[0]["jobId"], "RUNNABLE")
    assert asyncio.run(supervisor.round(late_s)) == []


def test_runs_of_another_store_are_left_alone(cloud: Cloud, batch: AwsBatch, store: ObjectStore) -> None:
    used_up(cloud, batch)
    other = Supervisor(batch, SITE, store, Steps(1, 2, 3), store_url="s3://other")
    assert asyncio.run(other.round(NOW_S + 60)) == []


def test_a_final_exit_code_is_left_alone(cloud: Cloud, batch: AwsBatch, store: ObjectStore) -> None:
    job = batch.start(order()).job
    cloud.happened(job, "FAILED", attempts=[*HOST_GONE, {"container": {"exitCode": 65}}])
    steps = Steps(1, 2)
    assert rounds(batch, store, steps) == []
    assert steps.asked == []


def test_who_waits_too_long_for_spot_moves_and_leaves_no_job_behind(
    cloud: Cloud, batch: AwsBatch, store: ObjectStore
) -> None:
    job = batch.start(order()).job
    cloud.happened(job, "RUNNABLE")
    began = time.time()
    assert rounds(batch, store, Steps(), at_s=began + 7_000) == []
    (decision,) = rounds(batch, store, Steps(), at_s=began + 7_300)
    assert (decision.kind, decision.reason) == ("move", "no spot machine within 2h")
    (moved,) = cloud.jobs(batches.ON_DEMAND)
    assert moved["tags"]["steelyard:submission"] == "2"
    assert batch.status(job).reason == "superseded by a later submission of the same run"
    cloud.happened(moved["jobId"], "RUNNABLE")
    assert rounds(batch, store, Steps(), at_s=began + 90_000) == []


@pytest.mark.parametrize("broken", ["batch", "progress"])
def test_no_answer_is_no_failure(
    cloud: Cloud, batch: AwsBatch, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    used_up(cloud, batch)
    with contextlib.ExitStack() as stack:
        if broken == "batch":
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            stack.enter_context(pytest.raises(LauncherUnavailable))
            rounds(AwsBatch(SITE), store, Steps(1, 2, 3))
        else:
            stack.enter_context(pytest.raises(StoreUnavailable))
            rounds(batch, store, Steps(fails=True))
    assert len(cloud.jobs(batches.SPOT)) == 1
    assert asyncio.run(_keys(store)) == []


async def _keys(store: ObjectStore) -> list[str]:
    return [row.key async for row in store.list("")]

"""What the chart says of the keeper is true of its commands: words, file, exits, rights; and its pods' own words do their work."""

import asyncio
import copy
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click import Command, Context
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.budgets import budgetfile
from gateway.cli.budgets import CROSSED, UNDELIVERED
from gateway.cli.main import steelyard
from gateway.reports import compaction
from gateway.reports.sync import default_folder
from tests.support import charts, kept, receivers, stores
from tests.support.servers import S3Server

JOBS = ("compact", "verify", "budgets")
KEPT = charts.example("keeper")
SECRET = "only-for-tests"


def values(mode: str = "none", **keeper: Any) -> dict[str, Any]:
    """The example of a mode with the keeper beside it, changed by these sections."""
    made = copy.deepcopy(charts.example(mode))
    made["keeper"] = copy.deepcopy(KEPT["keeper"])
    for section, options in keeper.items():
        made["keeper"].setdefault(section, {}).update(options)
    return made


def cron_jobs(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = [manifest for manifest in manifests if manifest["kind"] == "CronJob"]
    return {one["metadata"]["labels"]["steelyard/keeper"]: one for one in found if is_keepers(one)}


def is_keepers(manifest: dict[str, Any]) -> bool:
    return bool(manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "steelyard-keeper")


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod(job)["containers"]
    return dict(found)


@pytest.mark.parametrize("mode", [*charts.MODES, "envoy"])
def test_without_it_there_is_nothing_of_it_and_with_it_the_gateways_are_as_before(mode: str) -> None:
    plain, beside = charts.documents(charts.example(mode)), charts.documents(values(mode))
    assert not any(is_keepers(manifest) for manifest in plain)
    assert [manifest for manifest in beside if not is_keepers(manifest)] == plain
    assert set(cron_jobs(beside)) == set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_may_be_left_out_or_suspended(job: str) -> None:
    without = charts.documents(values(**{job: {"enabled": False}}))
    assert set(cron_jobs(without)) == set(JOBS) - {job}
    assert any(manifest["kind"] == "ConfigMap" and is_keepers(manifest) for manifest in without) == (job != "budgets")
    suspended = cron_jobs(charts.documents(values(**{job: {"suspend": True}})))
    assert {name for name, found in suspended.items() if found["spec"]["suspend"]} == {job}


def test_without_a_budget_nobody_checks_one() -> None:
    manifests = charts.documents(values(budgets={"file": {}}))
    assert set(cron_jobs(manifests)) == {"compact", "verify"}
    assert [one["kind"] for one in manifests if is_keepers(one) and one["kind"] == "ConfigMap"] == []


@pytest.mark.parametrize("job", JOBS)
def test_the_words_are_a_commands_own(job: str, tmp_path: Path) -> None:
    words = here(container(cron_jobs(charts.documents(KEPT))[job]), charts.documents(KEPT), tmp_path)
    command: Command = steelyard
    while isinstance(command, type(steelyard)) or hasattr(command, "commands"):
        name = words.pop(0)
        found = command.get_command(Context(steelyard), name)  # type: ignore[attr-defined]
        assert found is not None, name
        command = found
    with Context(command) as context:
        command.parse_args(context, words)
    assert (command.name, context.params["store"]) == (
        {"budgets": "check"}.get(job, job),
        "s3://models/steelyard",
    )


@pytest.mark.parametrize("job", JOBS)
def test_runs_follow_each_other_and_end(job: str) -> None:
    spec = cron_jobs(charts.documents(KEPT))[job]["spec"]
    period_s = {"compact": 3600, "verify": 86400, "budgets": 900}[job]
    work = spec["jobTemplate"]["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "UTC")
    assert spec["startingDeadlineSeconds"] < period_s, "else a late run would be the next one"
    assert work["activeDeadlineSeconds"] < period_s, "else a run that hangs would take the place of the next"
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (1, 3)


def test_an_hour_is_closed_when_it_is_compacted() -> None:
    minute = int(cron_jobs(charts.documents(KEPT))["compact"]["spec"]["schedule"].split()[0])
    assert minute * 60 * 10**9 > compaction.GRACE_NS


def test_what_no_second_try_changes_is_not_tried_again() -> None:
    for job in cron_jobs(charts.documents(KEPT)).values():
        disrupted, final = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert final["onExitCodes"]["containerName"] == container(job)["name"]
        assert final["onExitCodes"]["values"] == [2, CROSSED]
        assert UNDELIVERED not in final["onExitCodes"]["values"]


@pytest.mark.parametrize("job", JOBS)
def test_it_has_the_gateways_fences_and_a_name_of_its_own(job: str) -> None:
    manifests = charts.documents(KEPT)
    gateway = charts.one(manifests, "Deployment")["spec"]["template"]["spec"]
    mine = pod(cron_jobs(manifests)[job])
    assert mine["securityContext"] == gateway["securityContext"]
    assert mine["containers"][0]["securityContext"] == gateway["containers"][0]["securityContext"]
    assert (mine["automountServiceAccountToken"], mine["enableServiceLinks"]) == (False, False)
    assert mine["serviceAccountName"] != gateway["serviceAccountName"]
    accounts = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "ServiceAccount"}
    assert (
        accounts[mine["serviceAccountName"]]["metadata"]["annotations"]
        == KEPT["keeper"]["serviceAccount"]["annotations"]
    )
    assert mine["nodeSelector"] == KEPT["keeper"]["pod"]["nodeSelector"]


@pytest.mark.parametrize("job", JOBS)
def test_it_writes_only_into_its_volume_and_no_more_than_fits(job: str) -> None:
    mine = pod(cron_jobs(charts.documents(KEPT))[job])
    (only,) = mine["containers"]
    writable = {mount["mountPath"] for mount in only["volumeMounts"] if not mount.get("readOnly")}
    environ = {pair["name"]: pair["value"] for pair in only["env"]}
    assert {environ["XDG_CACHE_HOME"]} == writable == {"/tmp"}
    assert default_folder("s3://b", environ).is_relative_to("/tmp")
    (tmp,) = (volume["emptyDir"] for volume in mine["volumes"] if "emptyDir" in volume)
    limit = only["resources"]["limits"]
    assert int(limit["ephemeral-storage"].removesuffix("Gi")) > int(tmp["sizeLimit"].removesuffix("Gi"))
    assert only["resources"]["requests"] == limit


def test_only_the_job_that_tells_somebody_gets_the_secret_of_telling() -> None:
    made = values()
    made["store"]["secret"] = "store-keys"
    jobs = cron_jobs(charts.documents(made))
    secrets = {name: [one["secretRef"]["name"] for one in container(job)["envFrom"]] for name, job in jobs.items()}
    assert secrets == {"compact": ["store-keys"], "verify": ["store-keys"], "budgets": ["store-keys", "budget-webhook"]}
    made["keeper"]["secret"] = "keeper-keys"
    own = container(cron_jobs(charts.documents(made))["compact"])["envFrom"]
    assert own == [{"secretRef": {"name": "keeper-keys"}}]


def test_nobody_may_talk_to_it_and_it_may_talk_to_the_store() -> None:
    made = values() | {"networkPolicy": {"storePorts": [8333], "storeCidrs": ["10.0.0.0/8"]}}
    made["keeper"]["egress"] = [{"ports": [{"protocol": "TCP", "port": 443}]}]
    manifests = charts.documents(made)
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"}
    mine, gateways = policies["shop-steelyard-keeper"], policies["shop-steelyard"]
    for job in cron_jobs(manifests).values():
        labels = job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].items()
        assert mine["podSelector"]["matchLabels"].items() <= labels
        assert not gateways["podSelector"]["matchLabels"].items() <= labels, "callers of gateways would reach it"
    assert "ingress" not in mine
    assert mine["egress"] == [*gateways["egress"], *made["keeper"]["egress"]]


BUDGETS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
            "period": st.sampled_from(["day", "month", "hours:24"]),
            "usd": st.sampled_from(["1", "0.000001", "250.00"]),
        },
        optional={
            "model": st.text("*?ab\"\\<&é✓'", min_size=1, max_size=8),
            "tenant": st.text("*?ab\"\\<&é✓'", min_size=1, max_size=8),
            "view": st.sampled_from(["direct", "full"]),
            "thresholds": st.lists(st.sampled_from([0.5, 0.8, 1, 1.25, 12]), min_size=1, unique=True),
            "forecast": st.lists(st.sampled_from([1, 1.5]), unique=True),
        },
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda budget: budget["id"],
)


@settings(max_examples=25, deadline=None)
@given(BUDGETS)
def test_budgets_arrive_as_they_were(budgets: list[dict[str, Any]]) -> None:
    hook = {"url": "https://h.example.com/a?b=1&c=<2>", "secret_env": "S", "timeout_s": 2.5}
    made = values(budgets={"file": {"budget": budgets, "webhook": hook}})
    text = config_map(charts.documents(made))["budgets.toml"]
    read = budgetfile.parse(text, source="the chart")
    assert tomllib.loads(text)["budget"] == budgets
    assert [budget.id for budget in read.budget] == [budget["id"] for budget in budgets]
    assert read.webhook is not None
    assert (read.webhook.url, read.webhook.timeout_s) == (hook["url"], 2.5)


def test_the_pods_own_words_compact_verify_and_tell(moto: S3Server, tmp_path: Path, monkeypatch: Any) -> None:
    store = f"s3://{stores.bucket(moto, monkeypatch)}/team"
    asyncio.run(kept.put(store))
    with receivers.receiving() as receiver:
        made = values(
            budgets={"file": tomllib.loads(kept.budgets(receiver.url, secret_env="STEELYARD_WEBHOOK_SECRET"))}
        )
        made["store"] = {"url": store, "region": "us-east-1", "endpoint": moto.url, "secret": "keys"}
        manifests = charts.documents(made)
        jobs = cron_jobs(manifests)
        compacted = ran(jobs["compact"], manifests, tmp_path)
        assert (compacted.returncode, compacted.stdout.count("generation 0")) == (0, kept.HOURS), compacted.stderr
        verified = ran(jobs["verify"], manifests, tmp_path)
        assert (verified.returncode, "the ledger is whole" in verified.stdout) == (0, True), verified.stdout
        checked = ran(jobs["budgets"], manifests, tmp_path, STEELYARD_WEBHOOK_SECRET=SECRET)
        assert checked.returncode == CROSSED, checked.stderr
        (told,) = receiver.told
        assert (told["budget"], told["threshold"]) == ("all", "1")
        assert "steelyard-signature" in receiver.headers[0]
    assert len(asyncio.run(kept.keys(store, "compacted/v1/manifests/"))) == kept.HOURS


def ran(
    job: dict[str, Any], manifests: list[dict[str, Any]], folder: Path, **secret: str
) -> "subprocess.CompletedProcess[str]":
    """As the kubelet would start it; the credentials are this process's, as a Secret's would be."""
    words = here(container(job), manifests, folder)
    told = {pair["name"]: pair["value"] for pair in container(job)["env"]}
    environ = os.environ | told | {"XDG_CACHE_HOME": str(folder / "cache")} | secret
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def here(found: dict[str, Any], manifests: list[dict[str, Any]], folder: Path) -> list[str]:
    """The container's words, with its mounted file where this test has written it."""
    assert found["command"] == ["steelyard"]
    for name, text in config_map(manifests).items():
        (folder / name).write_text(text)
    mounts = [mount["mountPath"] for mount in found["volumeMounts"] if mount["name"] == "budgets"]
    return [word.replace(mounts[0], str(folder)) if mounts else word for word in found["args"]]


def config_map(manifests: list[dict[str, Any]]) -> dict[str, str]:
    (found,) = (one for one in manifests if one["kind"] == "ConfigMap" and is_keepers(one))
    return dict(found["data"])

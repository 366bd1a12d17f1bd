"""Values that make no sense stop Helm before any manifest is made, each with a sentence that names the value."""

import copy
import re
from typing import Any

import helm_python
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.k8s import generate
from tests.support import charts
from trainers.spec import cron

JOB = {"name": "flights", "recipe": "flights", "image": f"r/t@sha256:{'a' * 64}"}
FRONT = {"enabled": True, "image": {"repository": "e", "digest": f"sha256:{'e' * 64}"}}
KEEPER = {"enabled": True, "image": {"repository": "k", "digest": f"sha256:{'b' * 64}"}}
BUDGET = {"id": "all", "period": "month", "usd": "10.00"}
NO_SUCH = "additional properties '{}' not allowed"

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a digest that is a tag": (
        {"image.digest": "v1.2"},
        "image.digest 'v1.2' is no digest: write sha256:<64 hex digits>",
    ),
    "no digest": ({"image.digest": ""}, "image.digest '' is no digest"),
    "a short digest": ({"image.digest": "sha256:abc"}, "image.digest 'sha256:abc' is no digest"),
    "a tag": ({"image.tag": "v1"}, NO_SUCH.format("tag")),
    "no repository": ({"image.repository": ""}, "image.repository is empty: say where the gateway's image is"),
    "a digest in the repository": ({"image.repository": "r/g@sha256:1"}, "at '/image/repository'"),
    "a folder as store": ({"store.url": "./store"}, "store.url './store' is no bucket"),
    "no store": ({"store.url": ""}, "store.url '' is no bucket"),
    "an unknown value": ({"replica": 3}, NO_SUCH.format("replica")),
    "an unknown mode": (
        {"autoscaling.mode": "vpa"},
        "at '/autoscaling/mode': value must be one of 'hpa', 'keda', 'knative', 'none'",
    ),
    "text for a number": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "a number for text": ({"env": {"A": 1}}, "at '/env/A': got number, want string"),
    "half a CPU": ({"resources.cpu": 0.5}, "at '/resources/cpu'"),
    "CPUs as text": ({"resources.cpu": "2"}, "at '/resources/cpu': got string, want integer"),
    "memory without a unit": ({"resources.memory": "4"}, "at '/resources/memory'"),
    "a setting as environment": ({"env": {"STEELYARD_SERVER__PORT": "1"}}, "STEELYARD_SERVER__PORT"),
    "an unknown setting": ({"settings.server.drain": 3}, "at '/settings/server': " + NO_SUCH.format("drain")),
    "an unknown section": ({"settings.sever": {}}, "at '/settings': " + NO_SUCH.format("sever")),
    "a setting of the wrong type": (
        {"settings.server.drain_s": "long"},
        "at '/settings/server/drain_s': got string, want number",
    ),
    "a setting out of bounds": ({"settings.ledger.flush_interval_s": 61}, "at '/settings/ledger/flush_interval_s'"),
    "the port as a setting": ({"settings.server.port": 80}, NO_SUCH.format("port")),
    "the store as a setting": ({"settings.store": "s3://b"}, NO_SUCH.format("store")),
    "a time taken away": ({"settings.timeout_s": None}, "missing property 'timeout_s'"),
    "deadlines longer than the drain": (
        {"settings.timeout_s": 60},
        "settings.server.drain_s (35) must be more than settings.timeout_s (60)",
    ),
    "a kill before the end": ({"shutdown.graceSeconds": 52}, "shutdown.graceSeconds (52) must be more than 52"),
    "a longer notice than there is time": (
        {"shutdown.preStopSeconds": 30},
        "shutdown.graceSeconds (60) must be more than 77",
    ),
    "a cache as large as its disk": (
        {"disk.cacheGiB": 9},
        "disk.cacheGiB (9) must be more than settings.repository.cache_bytes_max and ledger.spill_bytes_max together (9663676416",
    ),
    "more at least than at most": ({"autoscaling.min": 11}, "autoscaling.min (11) is more than autoscaling.max (10)"),
    "HPA from zero": (
        {"autoscaling.mode": "hpa", "autoscaling.min": 0},
        "a HorizontalPodAutoscaler starts nothing from zero",
    ),
    "KEDA without Prometheus": ({"autoscaling.mode": "keda"}, "autoscaling.keda.prometheus is empty"),
    "KEDA from zero by a gauge that is not there": (
        {"autoscaling.mode": "keda", "autoscaling.min": 0, "autoscaling.keda.prometheus": "http://p:9090"},
        "no gateway runs then, so none reports steelyard_saturation_ratio; set autoscaling.keda.wakeQuery",
    ),
    "Envoy without a digest": ({"envoy": FRONT | {"image": {"repository": "e"}}}, "envoy.image.digest '' is no digest"),
    "Envoy by a tag": (
        {"envoy": FRONT | {"image": {"repository": "e", "digest": "v1.40"}}},
        "envoy.image.digest 'v1.40' is no digest: write sha256:<64 hex digits>",
    ),
    "Envoy from nowhere": (
        {"envoy": FRONT | {"image": {"digest": f"sha256:{'e' * 64}"}}},
        "envoy.image.repository is empty: say where Envoy's image is",
    ),
    "Envoy before Knative": (
        {"envoy": FRONT, "settings.server.linger_s": 2, "autoscaling.mode": "knative"},
        "envoy.enabled and autoscaling.mode knative exclude each other",
    ),
    "Envoy and no time to notice": (
        {"envoy": FRONT, "settings.server.linger_s": 1.9},
        "settings.server.linger_s (1.9) must be 2 or more with envoy.enabled",
    ),
    "Envoy and the default": ({"envoy": FRONT}, "settings.server.linger_s (0) must be 2 or more"),
    "deadlines longer than Envoy waits": (
        {"envoy": FRONT, "settings.server": {"linger_s": 2, "drain_s": 40}, "settings.timeout_s": 31},
        "settings.timeout_s (31) must be less than 31, for which Envoy waits",
    ),
    "gateways that close first": (
        {"envoy": FRONT, "settings.server": {"linger_s": 2, "keep_alive_s": 30}},
        "settings.server.keep_alive_s (30) must be more than 30, after which Envoy closes",
    ),
    "bodies that Envoy refuses": (
        {"envoy": FRONT, "settings.server": {"linger_s": 2, "body_bytes_max": 16777217}},
        "settings.server.body_bytes_max (16777217) is more than Envoy's file lets through (16777216)",
    ),
    "heads that Envoy refuses": (
        {"envoy": FRONT, "settings.server": {"linger_s": 2, "head_bytes_max": 32769}},
        "settings.server.head_bytes_max (32769) is more than Envoy's file lets through (32768)",
    ),
    "an Envoy that leaves at once": (
        {"envoy": FRONT | {"preStopSeconds": 106}, "settings.server.linger_s": 2},
        "envoy.preStopSeconds (106) must be more than 106: a connection may be used for 75 s",
    ),
    "an Envoy with less memory than it lets in": (
        {"envoy": FRONT | {"resources": {"cpu": 1, "memory": "1610M"}}, "settings.server.linger_s": 2},
        "envoy.resources.memory (1610M) must be at least 1536Mi",
    ),
    "no Envoy at all": ({"envoy": FRONT | {"replicas": 0}}, "at '/envoy/replicas'"),
    "an unknown value of Envoy": ({"envoy": FRONT | {"port": 80}}, "at '/envoy': " + NO_SUCH.format("port")),
    "an unknown value of Envoy's pod": ({"envoy": FRONT | {"pod": {"x": 1}}}, NO_SUCH.format("x")),
    "a scraper that is none": ({"envoy": FRONT | {"scrapers": [{}]}}, "at '/envoy/scrapers/0'"),
    "a keeper without an image": ({"keeper": {"enabled": True}}, "keeper.image.repository is empty"),
    "a keeper by a tag": (
        {"keeper": KEEPER | {"image": {"repository": "k", "digest": "v1"}}},
        "keeper.image.digest 'v1' is no digest",
    ),
    "a keeper's schedule that is not cron": (
        {"keeper": KEEPER | {"compact": {"schedule": "60 * * * *"}}},
        "keeper.compact.schedule '60 * * * *' is not cron: five fields",
    ),
    "a keeper's schedule of two kinds of days": (
        {"keeper": KEEPER | {"verify": {"schedule": "0 3 1 * mon"}}},
        "keeper.verify.schedule '0 3 1 * mon' restricts the day of month and the day of week",
    ),
    "a keeper's unknown job": ({"keeper": KEEPER | {"repair": {}}}, "at '/keeper': " + NO_SUCH.format("repair")),
    "a job without an end": (
        {"keeper": KEEPER | {"compact": {"deadlineSeconds": 0}}},
        "at '/keeper/compact/deadlineSeconds'",
    ),
    "a budget in floating point": (
        {"keeper": KEEPER | {"budgets": {"file": {"budget": [BUDGET | {"usd": 10.0}]}}}},
        "at '/keeper/budgets/file/budget/0/usd': got number, want string",
    ),
    "a budget's unknown key": (
        {"keeper": KEEPER | {"budgets": {"file": {"budget": [BUDGET | {"limit": "1"}]}}}},
        NO_SUCH.format("limit"),
    ),
    "a budget's period that is none": (
        {"keeper": KEEPER | {"budgets": {"file": {"budget": [BUDGET | {"period": "week"}]}}}},
        "at '/keeper/budgets/file/budget/0/period'",
    ),
    "two budgets of one name": (
        {"keeper": KEEPER | {"budgets": {"file": {"budget": [BUDGET, BUDGET]}}}},
        "keeper.budgets.file: two budgets have the id 'all'",
    ),
    "a job's image without digest": (
        {"training.jobs": {"weekly": {"spec": JOB | {"image": "r/t:1"}}}},
        "training.jobs.weekly.spec.image 'r/t:1' has no digest",
    ),
    "a job without recipe": (
        {"training.jobs": {"weekly": {"spec": {"name": "x", "image": "r"}}}},
        "at '/training/jobs/weekly/spec': missing property 'recipe'",
    ),
    "a job's unknown key": (
        {"training.jobs": {"weekly": {"spec": JOB | {"gpus": 1}}}},
        "at '/training/jobs/weekly/spec': " + NO_SUCH.format("gpus"),
    ),
    "a time without unit": (
        {"training.jobs": {"weekly": {"spec": JOB | {"limits": {"wall": "30"}}}}},
        "at '/training/jobs/weekly/spec/limits/wall'",
    ),
    "a job's name that is no DNS name": ({"training.jobs": {"Weekly_1": {"spec": JOB}}}, "Weekly_1"),
    "a job named as ours": ({"training.jobs": {"supervisor-1": {"spec": JOB}}}, "supervisor-1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_a_sentence(case: str) -> None:
    changes, sentence = REFUSED[case]
    with pytest.raises(helm_python.HelmError) as refusal:
        charts.text(with_changes(changes))
    assert sentence in str(refusal.value)


def test_what_just_fits_before_the_gateways_is_taken() -> None:
    server = {"linger_s": 2, "keep_alive_s": 31, "body_bytes_max": 16 << 20, "headers_max": 100}
    front = FRONT | {"preStopSeconds": 107, "resources": {"cpu": 1, "memory": "1536Mi"}}
    assert "/etc/envoy" in charts.text(with_changes({"envoy": front, "settings.server": server}))


@pytest.mark.parametrize(
    "line", ["", "daily", "0 3 * *", "61 * * * *", "0 3 * * 8", "0 25 * * *", "* * * * * *", "@weekly", "5/2 * * * *"]
)
def test_a_schedule_that_is_not_cron_is_refused(line: str) -> None:
    with pytest.raises(helm_python.HelmError) as refusal:
        charts.text(with_schedule(line))
    said = str(refusal.value)
    assert (
        f"training.jobs.weekly.spec.schedule.cron '{line}' is not cron: five fields" in said
        or "/schedule/cron'" in said
    )


def test_a_schedule_of_two_kinds_of_days_is_refused() -> None:
    with pytest.raises(helm_python.HelmError, match="restricts the day of month and the day of week"):
        charts.text(with_schedule("0 3 1 * mon"))


WORDS = st.sampled_from(
    ["*", "0", "7", "59", "60", "00", "mon", "JAN", "1-5", "5-1", "*/2", "1-9/3", "2/3", "1,2", "-", "100", "x", "*/0"]
)


@given(st.lists(WORDS, min_size=4, max_size=6).map(" ".join))
def test_what_the_trainer_reads_as_cron_the_chart_takes(line: str) -> None:
    pattern = generate.cron_template().splitlines()[2]
    is_taken = re.fullmatch(pattern, line.lower()) is not None
    problem = ""
    try:
        cron.parse(line)
    except ValueError as error:
        problem = str(error)
    # What no regular expression says, and what `_checks.tpl` says itself.
    is_beyond = any(word in problem for word in ("backwards", "never happens", "restricts"))
    assert is_taken if not problem else is_beyond or not is_taken, problem


def with_schedule(line: str) -> dict[str, Any]:
    return with_changes({"training.jobs": {"weekly": {"spec": JOB | {"schedule": {"cron": line}}}}})


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """The least values, changed at dotted paths."""
    values = copy.deepcopy(charts.example("none"))
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        at = values
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = value
    return values

"""What the task definition says of the gateway is true: settings, paths, ports, user, folders, figures, the order of waits."""

import re
from pathlib import Path

import pytest

from gateway import settings
from gateway.errors import SettingsError
from gateway.http import routes
from gateway.runtime.workers import STOP_S
from gateway.settings import Settings
from gateway.telemetry import figures
from tests.support import hcl

TASK = "modules/gateway/task.tf"
DOCKERFILE = next(Path("infra").rglob("gateway.Dockerfile")).read_text()
SETTINGS = re.findall(
    r"^\s+(STEELYARD_\w+)\s+= (.+)$", hcl.text(TASK) + hcl.text("modules/gateway/lambda.tf"), re.MULTILINE
)
LITERALS = {name: value.strip('"') for name, value in SETTINGS if value.startswith('"') and "${" not in value}


@pytest.mark.parametrize("name", sorted({name for name, _ in SETTINGS}))
def test_every_variable_is_a_setting(name: str) -> None:
    value = LITERALS.get(name, "1")
    try:
        settings.load(environ={name: value})
    except SettingsError as error:
        pytest.fail(f"{name}: {error}")


def test_every_variable_is_one_that_a_gateway_reads() -> None:
    """One without `__` counts only when it names an option: a slip would be passed over in silence."""
    options = set(Settings.__struct_fields__)
    for name, _ in SETTINGS:
        section, _, option = name.removeprefix("STEELYARD_").lower().partition("__")
        assert section in options, name
        assert not option or option in getattr(Settings(), section).__struct_fields__, name


def test_the_health_check_asks_a_route_that_there_is() -> None:
    assert hcl.attribute(TASK, "health_path") in routes.ready.paths


def test_the_port_is_the_gateways_own() -> None:
    port = int(hcl.attribute(TASK, "port"))
    assert port == Settings().server.port
    assert f"EXPOSE {port}" in DOCKERFILE


def test_the_task_runs_as_the_images_user() -> None:
    assert f"USER {hcl.attribute(TASK, 'user')}" in DOCKERFILE


def test_the_scratch_volume_takes_its_mode_from_the_image() -> None:
    """Without VOLUME in the image an empty volume belongs to root, and the gateway could not write to it."""
    scratch = hcl.attribute(TASK, "scratch")
    volumes = re.search(r"^VOLUME \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    assert volumes
    assert f'"{scratch}"' in volumes[1].split(", ")
    cache = next(value for name, value in SETTINGS if name == "STEELYARD_REPOSITORY__CACHE_DIR")
    assert cache.strip('"') == "${local.scratch}/steelyard-cache"


def test_a_stop_waits_for_all_that_the_gateway_waits_for() -> None:
    assert re.search(
        r"linger_drain_s\s+= var\.linger_s \+ local\.drain_s \+ 1 \+ local\.ledger_drain_s", hcl.text(TASK)
    )
    assert 2 * STOP_S == Settings().runtime.stop_s * 2 == 1, "the 1 in it"
    assert re.search(r"stop_s\s+= local\.linger_drain_s \+ 4", hcl.text(TASK))


def test_every_metric_filter_has_a_figure_and_every_figure_a_filter() -> None:
    fields = re.findall(r'^\s+(\w+)\s+= \{ metric = "', hcl.text("modules/gateway/scaling.tf"), re.MULTILINE)
    assert set(fields) == set(figures.GAUGES) | set(figures.COUNTERS)
    assert f'$.message = \\"{figures.MESSAGE}\\"' in hcl.text("modules/gateway/scaling.tf")


def test_the_function_is_told_what_a_container_is_told() -> None:
    told = hcl.text("modules/gateway/lambda.tf")
    assert "local.environment" in told
    assert 'entry_point = ["steelyard"]' in told
    assert 'command     = ["serve"]' in told


def test_the_function_needs_nothing_in_its_image_but_the_gateway() -> None:
    """Whatever else is said to the function is a setting of the gateway."""
    told = hcl.text("modules/gateway/lambda.tf").split("environment {")[1].split("ephemeral")[0]
    assert set(re.findall(r"^\s+([A-Z]\w+)\s+=", told, re.MULTILINE)) == {"STEELYARD_REPOSITORY__CACHE_BYTES_MAX"}

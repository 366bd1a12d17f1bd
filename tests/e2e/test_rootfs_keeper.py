"""The keeper's image without an engine: its Dockerfile carried out, its three commands run in it as a container would run them."""

import asyncio
import stat
import subprocess
from pathlib import Path

import pytest

from gateway.cli.budgets import CROSSED
from infra.images import without_engine
from tests.e2e.test_rootfs import SHELLS
from tests.support import kept, receivers, rootfs, stores
from tests.support.servers import S3Server

pytestmark = pytest.mark.e2e

DOCKERFILE = Path("infra/images/keeper.Dockerfile")
UNPACKED_BYTES_MAX = 180_000_000
"""Python, the store's client and DuckDB, which is 65 MB of it."""


@pytest.fixture(scope="module")
def root() -> Path:
    if reason := rootfs.missing():
        pytest.skip(f"THE KEEPER'S ROOT FILESYSTEM IS NOT TESTED: {reason}")
    return without_engine.main(DOCKERFILE, Path(".rootfs"))


def test_it_is_small_and_has_no_shell_and_cannot_serve(root: Path) -> None:
    files = [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    size_bytes = sum({path.lstat().st_ino: path.lstat().st_size for path in files}.values())
    assert size_bytes < UNPACKED_BYTES_MAX
    assert not {path.name for path in files} & SHELLS
    assert not [path for path in files if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    installed = {path.name.split("-")[0] for path in root.glob("opt/steelyard/lib/python3*/site-packages/*")}
    assert "duckdb" in installed
    assert not installed & {"torch", "onnx", "onnxruntime", "litestar", "numpy", "boto3", "pip", "pygments"}
    assert (root / "usr/share/sbom/steelyard-keeper.cdx.json").is_file()


def test_it_compacts_verifies_and_tells_as_nobody_on_a_read_only_root(
    root: Path, moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"s3://{stores.bucket(moto, monkeypatch)}/team"
    asyncio.run(kept.put(store))
    with receivers.receiving() as receiver:
        text = kept.budgets(receiver.url)
        compacted = ran(root, moto, store, "ledger", "compact")
        assert (compacted.returncode, compacted.stdout.count("generation 0")) == (0, kept.HOURS), compacted.stderr
        verified = ran(root, moto, store, "ledger", "verify")
        assert (verified.returncode, "the ledger is whole" in verified.stdout) == (0, True), verified.stderr
        checked = ran(root, moto, store, "budgets", "check", STEELYARD_BUDGETS=text)
        assert checked.returncode == CROSSED, checked.stderr
        assert [told["budget"] for told in receiver.told] == ["all"]


def ran(root: Path, moto: S3Server, store: str, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    said = without_engine.configuration(without_engine.stages(DOCKERFILE.read_text())[-1])
    given, entry = said["Env"], said["Entrypoint"]
    assert isinstance(given, dict)
    assert isinstance(entry, list)
    image = {name: value for name, value in given.items() if name != "PATH"}
    environ = rootfs.environment(root, given["PATH"], STEELYARD_STORE=store, **image, **moto.environment(), **more)
    command = rootfs.command([*entry, *words], volumes={"/tmp": "256m"})
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)

"""The gateway's image without an engine: its Dockerfile carried out, what came of it started as a container would be, and asked."""

import asyncio
import contextlib
import http.client
import json
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from gateway.objectstore.opening import open_store
from infra.images import without_engine
from infra.images.without_engine import configuration
from tests.support import models, rootfs, signingkeys, stores, texts
from tests.support.collectors import collecting
from tests.support.gateways import Gateway
from tests.support.servers import S3Server

pytestmark = pytest.mark.e2e

DOCKERFILE = Path("infra/images/gateway.Dockerfile")
UNPACKED_BYTES_MAX = 300_000_000
ROW = dict(models.TINY_EXAMPLES.rows[0])
SHELLS = {
    "sh",
    "bash",
    "dash",
    "ash",
    "zsh",
    "busybox",
    "perl",
    "apt",
    "apt-get",
    "dpkg",
    "pip",
    "pip3",
    "gcc",
    "curl",
    "wget",
}


@pytest.fixture(scope="module")
def root() -> Path:
    if reason := rootfs.missing():
        pytest.skip(f"THE ROOT FILESYSTEM IS NOT TESTED: {reason}")
    return without_engine.main(DOCKERFILE, Path(".rootfs"))


@pytest.fixture
def store(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"s3://{stores.bucket(moto, monkeypatch)}/team"
    asyncio.run(published(url))
    return url


@pytest.fixture
def gateway(root: Path, store: str, moto: S3Server, tmp_path: Path) -> Iterator[Gateway]:
    """By the image's own entry point and environment, on an address that only this machine reaches."""
    words = [*map(str, said()["Entrypoint"]), "--store", store, "--host", "127.0.0.1", "--port", "0"]
    with rootfs.running(root, words, tmp_path / "log", environment(root, moto)) as running:
        yield running


def test_it_is_small_and_has_no_shell_and_nothing_setuid(root: Path) -> None:
    files = [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    size_bytes = sum({path.lstat().st_ino: path.lstat().st_size for path in files}.values())
    assert size_bytes < UNPACKED_BYTES_MAX
    assert not {path.name for path in files} & SHELLS
    assert not [path for path in files if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    broken = [path for path in files if path.is_symlink() and not (root / str(path.readlink()).lstrip("/")).exists()]
    assert not [path for path in broken if not path.exists()]
    assert not [path for path in files if path.name.split("-")[0] in {"torch", "onnx", "boto3", "faker", "pip"}]


def test_its_bill_of_materials_names_what_is_in_it(root: Path) -> None:
    text = (root / "usr/share/sbom/steelyard-gateway.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    names = {component["name"] for component in json.loads(text)["components"]}
    assert {"onnxruntime", "litestar", "msgspec", "python", "libc6", "libssl3"} <= names
    assert not {"pip", "faker", "torch", "bash"} & names


def test_it_predicts_as_nobody_on_a_read_only_root_and_drains(gateway: Gateway, store: str, root: Path) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == ["65532"] * 4
    assert (int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    mounts = [line.split() for line in Path(f"/proc/{gateway.process.pid}/mountinfo").read_text().splitlines()]
    assert all("ro" in words[5].split(",") for words in mounts if words[4] == "/")
    for path in ("/v2/health/ready", "/docs", "/docs/openapi.json", "/metrics", "/v1/loaded"):
        assert gateway.get(path).status == 200, path
    answers: list[int] = []
    asking = threading.Thread(target=ask_until_refused, args=(gateway.port, answers))
    asking.start()
    while len(answers) < 20 and asking.is_alive():
        gateway.get("/v2/health/live")
    assert gateway.terminate() == 0
    asking.join(timeout=30)
    assert set(answers) == {200}
    command = [sys.executable, "-m", "gateway", "costs", "--store", store, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    report = json.loads(done.stdout)
    assert report["balanced"]
    assert [row["requests"] for row in report["models"]] == [len(answers)]


def test_texts_traces_and_signatures_need_nothing_that_was_left_out(
    root: Path, moto: S3Server, store: str, tmp_path: Path
) -> None:
    asyncio.run(published(store, texts.publish))
    words = [*map(str, said()["Entrypoint"]), "--store", store, "--host", "127.0.0.1", "--port", "0"]
    with collecting() as collector:
        given = environment(root, moto) | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        with rootfs.running(root, words, tmp_path / "log", given) as gateway:
            answer = gateway.post("/v1/predict/topics", {"rows": [{"text": "The cat sat on a mat"}]})
            assert answer.status == 200, answer.body
            assert gateway.terminate() == 0
        assert collector.arrived.wait(10)
    pem = signingkeys.make(tmp_path, "ours").public.read_text()
    signed = environment(root, moto) | {"STEELYARD_REPOSITORY__PUBLIC_KEYS": pem}
    with rootfs.running(root, words, tmp_path / "log2", signed) as gateway:
        refused = gateway.post("/v1/predict/tiny", {"rows": [ROW]})
        assert (refused.status, "sign" in refused.error) == (503, True), refused.body


def test_its_other_commands_start(root: Path, moto: S3Server, store: str) -> None:
    for words in (["--help"], ["models", "list", "--store", store], ["keys", "--help"], ["serve", "--help"]):
        done = subprocess.run(
            rootfs.command(["steelyard", *words]),
            env=environment(root, moto),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{words}: {done.stderr}")


def said() -> dict[str, list[str] | dict[str, str] | str]:
    return configuration(without_engine.stages(DOCKERFILE.read_text())[-1])


def environment(root: Path, moto: S3Server) -> dict[str, str]:
    given = said()["Env"]
    assert isinstance(given, dict)
    more = {name: value for name, value in given.items() if name != "PATH"}
    return rootfs.environment(root, given["PATH"], **more, **moto.environment())


def ask_until_refused(port: int, answers: list[int]) -> None:
    """One request after another, each on its own connection, until the gateway takes no more."""
    body = json.dumps({"rows": [ROW]})
    with contextlib.suppress(ConnectionError):
        while len(answers) < 5_000:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/predict/tiny", body)
                answers.append(connection.getresponse().status)


async def published(url: str, publish: Callable[..., Awaitable[object]] = models.publish_tiny) -> None:
    async with contextlib.aclosing(open_store(url)) as store:
        await publish(store)

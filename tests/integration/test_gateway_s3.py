"""The whole chain on a real S3 server instead of a folder: publish, serve, follow a promotion, account, report."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.objectstore.opening import open_store
from tests.support import gateways, models, stores

ROW = dict(models.TINY_EXAMPLES.rows[0])


@pytest.fixture(params=["moto", "seaweedfs"])
def url(request: pytest.FixtureRequest) -> str:
    return stores.empty(request)


async def publish(url: str, seed: int = 0) -> None:
    async with contextlib.aclosing(open_store(url)) as store:
        await models.publish_tiny(store, seed=seed)


def test_the_chain_is_the_same_on_s3(url: str, tmp_path: Path) -> None:
    asyncio.run(publish(url))
    with gateways.running(url, tmp_path, STEELYARD_REPOSITORY__POLL_S="0.1") as gateway:
        first = gateway.post("/v1/predict/tiny", {"rows": [ROW, ROW]})
        assert (first.status, first.json["version"]) == (200, 1)
        asyncio.run(publish(url, seed=1))
        deadline = time.monotonic() + gateways.ANSWER_S
        answers = 1
        while gateway.post("/v1/predict/tiny", {"rows": [ROW]}).json["version"] == 1:
            answers += 1
            assert time.monotonic() < deadline, "the promotion was not followed"
        assert gateway.terminate() == 0
    command = [sys.executable, "-m", "gateway", "costs", "--store", url, "--json", "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    report = json.loads(done.stdout)
    assert report["balanced"]
    assert report["posted_picousd"] == report["charged_picousd"] > 0
    requests = {(row["model"], row["version"]): row["requests"] for row in report["models"]}
    assert requests == {("tiny", 1): answers, ("tiny", 2): 1}


def test_a_bucket_that_does_not_exist_is_one_line(url: str) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--store", url.replace("bucket-", "nobucket-"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "nobucket-" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

"""The two demos of the README, as a newcomer runs them: on the real flights, in a folder of their own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
DEMO_S = 600


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "160"}


def test_the_demo_goes_through_the_whole_chain_and_its_bill_adds_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--once"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "published: model 'flights' version 1" in done.stdout
    assert "steelyard-cost-picousd: " in done.stdout
    assert "sum of all rows, exact" in done.stdout
    assert re.search(r"flights@1 +2,001 +0 ", done.stdout)
    assert "warning" not in done.stdout
    assert list((tmp_path / ".steelyard/store/ledger/v1/containers").glob("*/*-close.json"))


def test_the_demo_stays_up_until_interrupted(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "gateway", "demo"],
            cwd=tmp_path,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            curl = _await_line(log, process, r"curl (\S+)/v1/predict/flights -d '(.*)'")
            with urllib.request.urlopen(f"{curl[1]}/v1/predict/flights", data=curl[2].encode(), timeout=30) as answer:
                assert b'"receipt"' in answer.read()
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
            assert process.wait(timeout=60) in {0, 130}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text()
    assert list((tmp_path / ".steelyard/store/ledger/v1/containers").glob("*/*-close.json"))


def _await_line(log: Path, process: "subprocess.Popen[bytes]", pattern: str) -> re.Match[str]:
    deadline = time.monotonic() + DEMO_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found
        time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace"))

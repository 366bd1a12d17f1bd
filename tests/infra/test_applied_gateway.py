"""The applied stack serves, trains and takes up what was trained: its own commands and environments, in its own roles."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.applied import ROW, WAIT_S, bare, keys_of, prepared, submitted
from tests.infra.conftest import Stack, environ, task_definition
from tests.support import lambdaapi, servers
from tests.support.gateways import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


def test_the_stack_serves_trains_and_takes_up_what_was_trained(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = asyncio.run(prepared(stack, monkeypatch))
    container, job = task_definition(stack), submitted(stack)
    as_gateway = stack.account.assume(stack.outputs["gateway"]["role_arn"])
    as_job = stack.account.assume(stack.outputs["trainer"]["role_arn"])
    with (
        stack.account.asking_for_credentials(),
        served(container, stack.account.environment(as_gateway), tmp_path) as gateway,
    ):
        refused = gateway.post("/v1/predict/first", {"rows": [ROW]})
        assert refused.status == 401, "a gateway of the stack must ask for keys"
        assert gateway.get("/metrics").status == 401
        first = gateway.request("POST", "/v1/predict/first", {"rows": [ROW]}, Steelyard_Key=key)
        assert (first.status, first.json["version"]) == (200, 1), gateway.log.read_text()[-3000:]
        assert gateway.request("POST", "/v1/predict/tiny", {"rows": [ROW]}, Steelyard_Key=key).status == 404
        trained = train(job, stack, as_job, tmp_path)
        assert trained.returncode == 0, trained.stdout + trained.stderr
        answer = answered(gateway, "/v1/predict/tiny", key)
        assert (answer["version"], answer["receipt"]["model"]) == (1, "tiny")
        page = gateway.request("GET", "/costs", Steelyard_Key=key)
        assert page.status == 200, page.body[:500]
        assert gateway.terminate() == 0, gateway.log.read_text()[-3000:]
    assert "Traceback" not in gateway.log.read_text()
    written = keys_of(stack)
    assert any(re.fullmatch(r"ledger/v1/dt=[^/]+/hr=\d\d/[^/]+/.+\.jsonl\.gz", name) for name in written)
    assert any(name.endswith("-close.json") for name in written), "the gateway's bill is closed"
    assert any(name.startswith("ledger/v1/training/") for name in written)
    figures_reach_cloudwatch(stack, gateway.log)


def test_the_function_answers_events_of_its_url(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own command and environment, in the role that it has, with a Runtime API that is played."""
    key = asyncio.run(prepared(stack, monkeypatch, "small"))
    function = stack.account.client("lambda").list_functions()["Functions"][0]
    as_function = stack.account.assume(function["Role"])
    told = dict(function["Environment"]["Variables"])
    assert told["STEELYARD_ACCESS__REQUIRED"] == "always"
    (port,) = servers.free_ports(1)
    with stack.account.asking_for_credentials(), lambdaapi.playing() as api:
        here = {
            "STEELYARD_SERVER__PORT": str(port),
            "STEELYARD_REPOSITORY__CACHE_DIR": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path),
            # What Lambda sets.
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "AWS_LAMBDA_FUNCTION_NAME": function["FunctionName"],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function["MemorySize"]),
        }
        env = bare() | told | here | stack.account.environment(as_function)
        command = [sys.executable, "-m", "gateway", "serve"]
        log = tmp_path / "function.log"
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
            try:
                body = json.dumps({"rows": [ROW]}).encode()
                assert api.request("POST", "/v1/predict/small", body).json["statusCode"] == 401
                answer = api.request("POST", "/v1/predict/small", body, steelyard_key=key)
                assert answer.json["statusCode"] == 200, log.read_text()[-3000:]
                assert int(answer.json["headers"]["steelyard-cost-picousd"]) > 200_000, "an invocation's fee is in it"
                process.terminate()
                assert process.wait(timeout=WAIT_S) == 0, log.read_text()[-3000:]
            finally:
                process.kill()
    assert "Traceback" not in log.read_text()
    assert api.init_errors == []


@contextlib.contextmanager
def served(container: dict[str, Any], account: dict[str, str], folder: Path) -> Iterator[Gateway]:
    """The task definition's own command and environment, in this account and role, until the block ends."""
    assert container["entryPoint"] + container["command"] == ["steelyard", "serve"]
    (port,) = servers.free_ports(1)
    told = environ(container["environment"])
    assert told["STEELYARD_SERVER__HOST"] == "0.0.0.0"
    # What differs from a task: the port is free here, nobody else reaches it, /tmp is this test's, and it hurries.
    here = {
        "STEELYARD_SERVER__HOST": "127.0.0.1",
        "STEELYARD_SERVER__PORT": str(port),
        "STEELYARD_SERVER__LINGER_S": "0",
        "STEELYARD_REPOSITORY__CACHE_DIR": str(folder / "cache"),
        "STEELYARD_LOG__FIGURES_S": "0.2",
        "STEELYARD_REPOSITORY__POLL_S": "0.2",
        "STEELYARD_LEDGER__FLUSH_INTERVAL_S": "1",
        "TMPDIR": str(folder),
    }
    env = bare() | told | here | account
    log = folder / "gateway.log"
    command = [sys.executable, "-m", "gateway", *container["command"]]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            yield Gateway(process, ready(process, port, log), log)
        finally:
            process.kill()


def ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> int:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if Gateway(process, port, log).get("/v2/health/ready").status == 200:
                return port
        time.sleep(0.05)
    raise AssertionError(f"the gateway did not start:\n{log.read_text()[-4000:]}")


def answered(gateway: Gateway, path: str, key: str) -> Any:
    """The first answer that is none of "no such model", which a gateway believes for a moment."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = gateway.request("POST", path, {"rows": [ROW]}, Steelyard_Key=key)
        if answer.status != 404:
            assert answer.status == 200, answer.body
            return answer.json
        time.sleep(0.1)
    raise AssertionError(f"the gateway does not see what was published:\n{gateway.log.read_text()[-4000:]}")


def train(job: dict[str, Any], stack: Stack, keys: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """The job's command in the job's environment, as Batch starts its first attempt."""
    assert job["container"]["command"] == ["steelyard", "train"]
    told = environ(job["container"]["environment"]) | {"AWS_BATCH_JOB_ID": job["jobId"], "AWS_BATCH_JOB_ATTEMPT": "1"}
    env = bare() | told | stack.account.environment(keys) | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gateway", "train"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def figures_reach_cloudwatch(stack: Stack, log: Path) -> None:
    """Every metric filter finds its field, as a number, in a line that the gateway wrote."""
    group = stack.outputs["gateway"]["log_group"]
    filters = stack.account.client("logs").describe_metric_filters(logGroupName=group)["metricFilters"]
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert len(filters) == len(stack.outputs["gateway"]["metrics"]["names"])
    for each in filters:
        found = re.fullmatch(r'\{ \$\.message = "(\w+)" && \$\.(\w+) >= 0 \}', each["filterPattern"])
        assert found is not None
        values = [line[found[2]] for line in lines if line["message"] == found[1]]
        assert values, f"no line that {each['filterPattern']} matches"
        assert all(isinstance(value, int | float) and value >= 0 for value in values)
        assert each["metricTransformations"][0]["metricValue"] == f"$.{found[2]}"

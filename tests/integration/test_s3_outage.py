"""A gateway whose S3 is away: what is loaded answers as before, the rest is told when to come back, and nobody restarts it after.

A real gateway process, a real S3 server, and between them a proxy that refuses, hangs up or holds its tongue; or credentials that
nobody renews. What single calls make of such a network is told in `test_objectstore_faults`; a folder that is away in
`test_hostile_store`.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from gateway.accounting import segment
from gateway.objectstore.opening import open_store
from tests.support import faultproxy, gateways, httpservers, models, servers, stores
from tests.support.faultproxy import Fault, FaultProxy, refusal
from tests.support.gateways import Answer, Gateway

ROWS = {"rows": [dict(models.TINY_EXAMPLES.rows[0])]}
SETTINGS = {
    "STEELYARD_REPOSITORY__POLL_S": "0.1",
    "STEELYARD_LEDGER__FLUSH_INTERVAL_S": "1",
    "STEELYARD_ACCESS__POLL_S": "0.1",
}
WAIT_S = 60
ALWAYS = 10**9


class Outage:
    """What the proxy does from `begin` to `end`; `healed` releases whoever it holds."""

    def __init__(self, proxy: FaultProxy, **fault: object) -> None:
        self._proxy, self._fault = proxy, fault
        self.healed = asyncio.Event()

    def begin(self) -> None:
        self._proxy.faults.append(Fault("HTTP/1.1", times=ALWAYS, **self._fault))  # type: ignore[arg-type]

    def end(self) -> None:
        self._proxy.faults.clear()
        self.healed.set()


def refused(proxy: FaultProxy) -> Outage:
    return Outage(proxy, answer=refusal(503, "SlowDown"))


def hung_up(proxy: FaultProxy) -> Outage:
    return Outage(proxy, keep_bytes=40)


def held(proxy: FaultProxy) -> Outage:
    outage = Outage(proxy, answer=b"", keep_bytes=0)
    outage._fault["meanwhile"] = outage.healed.wait
    return outage


@pytest.mark.parametrize("kind", [refused, *(pytest.param(kind, marks=pytest.mark.e2e) for kind in (hung_up, held))])
async def test_an_outage_stops_nobody_who_is_served_and_ends_by_itself(
    kind: Callable[[FaultProxy], Outage], moto: servers.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await published(moto, monkeypatch)
    async with faultproxy.running(moto.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        with contextlib.ExitStack() as stack:
            starting = gateways.running(url, tmp_path, "--preload", "tiny", **SETTINGS)
            gateway = await asyncio.to_thread(stack.enter_context, starting)
            assert (await ask(gateway, "tiny")).status == 200
            outage, sends = kind(proxy), len(proxy.seen)
            outage.begin()
            await until(lambda: len(proxy.seen) > sends + 3, "the gateway has met the outage")
            assert {(await ask(gateway, "tiny")).status for _ in range(50)} == {200}
            cold = await ask(gateway, "later", Steelyard_Timeout_Ms="2000")
            assert cold.status == 503, cold
            assert 1 <= int(cold.headers["retry-after"]) <= 3
            assert {(await ask(gateway, "tiny")).status for _ in range(50)} == {200}
            outage.end()
            assert (await answered(gateway, "later")).status == 200
            await recorded(url, tiny=101, later=1)
            assert await asyncio.to_thread(gateway.terminate) == 0
        assert "Traceback" not in gateway.log.read_text()


class Renewals:
    """What an ECS task asks for its role's credentials; those it gives have four minutes left, so that each use asks again."""

    def __init__(self, server: servers.S3Server) -> None:
        self.asked = 0
        self.is_broken = False
        self._server = server

    def handler(self) -> type[BaseHTTPRequestHandler]:
        renewals = self

        class Handler(httpservers.Quiet, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                renewals.asked += 1
                body = renewals.credentials()
                self.send_response(500 if renewals.is_broken else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

    def credentials(self) -> bytes:
        end = datetime.now(UTC) + timedelta(minutes=4)
        keys = {"AccessKeyId": self._server.access_key, "SecretAccessKey": self._server.secret_key, "Token": "t"}
        return json.dumps(keys | {"Expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}"}).encode()


@pytest.mark.e2e
async def test_credentials_that_nobody_renews_stop_nobody_who_is_served(
    moto: servers.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await published(moto, monkeypatch)
    renewals = Renewals(moto)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(httpservers.serving(renewals.handler()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/role")
        gateway = stack.enter_context(gateways.running(url, tmp_path, "--preload", "tiny", **SETTINGS))
        stores.use(moto, monkeypatch)  # for this process; the gateway has no keys of its own
        renewals.is_broken, asked = True, renewals.asked
        await until(lambda: renewals.asked > asked + 3, "the gateway was refused new ones")
        assert {(await ask(gateway, "tiny")).status for _ in range(50)} == {200}
        assert (await ask(gateway, "later", Steelyard_Timeout_Ms="5000")).status == 503
        renewals.is_broken = False
        assert (await answered(gateway, "later")).status == 200
        await recorded(url, tiny=50, later=1)
        assert await asyncio.to_thread(gateway.terminate) == 0
        log = [json.loads(line) for line in gateway.log.read_text().splitlines()]
        assert not [line for line in log if line["logger"].startswith("gateway") and "traceback" in line]
        assert moto.secret_key not in gateway.log.read_text()


async def published(moto: servers.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with two models."""
    url = f"s3://{stores.bucket(moto, monkeypatch)}"
    async with contextlib.aclosing(open_store(url)) as store:
        await models.publish_tiny(store, "tiny")
        await models.publish_tiny(store, "later", seed=1)
    return url


async def ask(gateway: Gateway, model: str, **headers: str) -> Answer:
    return await asyncio.to_thread(gateway.request, "POST", f"/v1/predict/{model}", ROWS, **headers)


async def answered(gateway: Gateway, model: str) -> Answer:
    """The first answer that is not a 503."""
    deadline = time.monotonic() + WAIT_S
    while (answer := await ask(gateway, model)).status == 503:
        assert time.monotonic() < deadline, gateway.log.read_text()[-3000:]
        await asyncio.sleep(0.05)
    return answer


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def recorded(url: str, **answers: int) -> None:
    """Wait until the ledger has as many answers of each model, each once: all that were given, and no other."""
    deadline = time.monotonic() + WAIT_S
    while (found := await in_ledger(url)) != answers:
        assert time.monotonic() < deadline, f"{found}, and should be {answers}"
        await asyncio.sleep(0.1)


async def in_ledger(url: str) -> Counter[str]:
    async with contextlib.aclosing(open_store(url)) as store:
        names = [row.key async for row in store.list("ledger/v1/dt=") if row.key.endswith(".jsonl.gz")]
        segments = [segment.decode((await store.get(name)).body) for name in names]
    requests = [request for one in segments for request in one.requests]
    assert len({request.id for request in requests}) == len(requests)
    return Counter(request.model for request in requests if request.outcome == "ok")

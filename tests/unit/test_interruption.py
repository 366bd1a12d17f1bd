"""Signals and spot notices ask training to stop, once politely. Handlers are put back; where no cloud is, none is assumed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.metadata import MetadataServer
from trainers.errors import SpecError
from trainers.interruption import signals, spot
from trainers.interruption.grace import require_grace
from trainers.interruption.signals import Interruption

REPOSITORY = Path(__file__).parents[2]

# --- the flag


def test_the_earliest_deadline_and_all_reasons_are_kept() -> None:
    interruption = Interruption()
    assert (interruption.is_requested, interruption.reason, interruption.deadline_ns) == (False, "", None)

    interruption.request("spot notice", deadline_ns=200)
    interruption.request("SIGTERM", deadline_ns=100)
    interruption.request("SIGTERM")

    assert (interruption.is_requested, interruption.reason) == (True, "spot notice, then SIGTERM")
    assert interruption.deadline_ns == 100


def test_many_threads_may_ask_at_once() -> None:
    interruption = Interruption()
    threads = [
        threading.Thread(target=interruption.request, args=(f"{i}",), kwargs={"deadline_ns": i}) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, interruption.reason.split(", then "))) == list(range(20))
    assert interruption.deadline_ns == 0


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_the_handlers_from_before_come_back(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in signals.SIGNALS}
    interruption = Interruption()
    with signals.handled(interruption):
        os.kill(os.getpid(), number)
        assert interruption.reason == number.name
        assert interruption.deadline_ns is None

    assert {n: signal.getsignal(n) for n in signals.SIGNALS} == before


async def test_an_event_loop_hears_the_signal_and_is_left_as_it_was() -> None:
    before = {n: signal.getsignal(n) for n in signals.SIGNALS}
    interruption = Interruption()
    began_ns = time.time_ns()
    with signals.handled(interruption, asyncio.get_running_loop(), grace_s=30):
        os.kill(os.getpid(), signal.SIGTERM)
        while not interruption.is_requested:  # noqa: ASYNC110 - a handler sets no asyncio.Event
            await asyncio.sleep(0)

    assert interruption.reason == "SIGTERM"
    assert interruption.deadline_ns is not None
    assert began_ns + 30e9 <= interruption.deadline_ns <= time.time_ns() + 30e9
    assert {n: signal.getsignal(n) for n in signals.SIGNALS} == before


def test_handlers_come_back_when_training_fails() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), signals.handled(Interruption()):
        _ = 1 / 0
    assert signal.getsignal(signal.SIGTERM) == before


STUBBORN = """
import asyncio, sys, threading
from trainers.interruption import signals
interruption = signals.Interruption()
def train():
    while True:
        if interruption.is_requested: print("asked", flush=True); break
    threading.Event().wait()   # a step that never ends
async def main():
    with signals.handled(interruption, asyncio.get_running_loop()):
        print("ready", flush=True)
        await asyncio.to_thread(train)
def plainly():
    with signals.handled(interruption):
        print("ready", flush=True)
        train()
asyncio.run(main()) if sys.argv[1] == "loop" else plainly()
"""


@pytest.mark.parametrize("how", ["loop", "plain"])
@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_the_process_at_once(how: str, second: signal.Signals, code: int) -> None:
    command = [sys.executable, "-c", STUBBORN, how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(second)

        assert process.wait(timeout=30) == code
        assert "without a checkpoint" in process.stderr.read()


def test_a_spot_notice_before_the_signal_does_not_make_it_the_second() -> None:
    interruption = Interruption()
    with signals.handled(interruption):
        interruption.request("spot notice")
        os.kill(os.getpid(), signal.SIGTERM)
    assert interruption.reason == "spot notice, then SIGTERM"


# --- grace


def test_a_save_that_fits_twice_is_accepted() -> None:
    require_grace(save_s=15.0, grace_s=30.0)


def test_a_save_that_does_not_fit_is_refused_with_the_figures() -> None:
    with pytest.raises(
        SpecError, match=r"takes 15\.1 s to save, and with a margin 30\.2 s.*kills 30\.0 s after.*longer stop grace"
    ):
        require_grace(save_s=15.1, grace_s=30.0)


# --- the spot notice


@pytest.fixture
def metadata() -> Iterator[MetadataServer]:
    with MetadataServer().running() as server:
        yield server


def test_the_server_of_these_tests_answers_nobody_without_a_token(metadata: MetadataServer) -> None:
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{metadata.url}/latest/meta-data/instance-type", timeout=10)
    caught.value.close()
    assert caught.value.code == 401


async def test_the_instance_is_described(metadata: MetadataServer) -> None:
    assert await spot.describe(base_url=metadata.url) == spot.Instance("g5.xlarge", "eu-west-1b", "spot")
    assert [request for request in metadata.requests if request.startswith("PUT")] == ["PUT /latest/api/token"]


async def test_a_fact_that_the_service_does_not_know_is_unknown(metadata: MetadataServer) -> None:
    del metadata.texts["instance-life-cycle"]
    found = await spot.describe(base_url=metadata.url)
    assert found == spot.Instance("g5.xlarge", "eu-west-1b", "unknown")


async def test_a_notice_requests_the_interruption_with_its_time(metadata: MetadataServer) -> None:
    interruption = Interruption()
    warnings: list[str] = []
    watching = asyncio.create_task(spot.watch(interruption, warnings.append, base_url=metadata.url, poll_s=0.001))
    await asyncio.to_thread(metadata.wait_for, 4)
    assert not interruption.is_requested

    metadata.texts[spot.ACTION] = '{"action": "terminate", "time": "2026-11-25T08:22:00Z"}'
    await asyncio.wait_for(watching, 30)

    assert interruption.reason == "spot notice: terminate at 08:22:00 UTC"
    assert interruption.deadline_ns == 1_795_594_920 * 10**9
    assert warnings == []


@pytest.mark.parametrize(
    "text",
    ["", "{}", "soon", '{"action": "stop", "time": "tomorrow"}', '{"action": "stop", "time": "2026-11-25T08:22:00"}'],
)
async def test_a_notice_that_cannot_be_read_is_a_notice_all_the_same(metadata: MetadataServer, text: str) -> None:
    interruption = Interruption()
    metadata.texts[spot.ACTION] = text

    await spot.watch(interruption, pytest.fail, base_url=metadata.url)

    assert (interruption.reason, interruption.deadline_ns) == ("spot notice", None)


async def test_an_expired_token_is_renewed(metadata: MetadataServer) -> None:
    interruption = Interruption()
    watching = asyncio.create_task(spot.watch(interruption, pytest.fail, base_url=metadata.url, poll_s=0.001))
    await asyncio.to_thread(metadata.wait_for, 3)
    metadata.expire()
    await asyncio.to_thread(metadata.wait_for, 8)
    metadata.texts[spot.ACTION] = '{"action": "stop", "time": "2026-11-25T08:22:00Z"}'
    await asyncio.wait_for(watching, 30)

    assert interruption.is_requested
    assert metadata.requests.count("PUT /latest/api/token") == 2


async def test_where_no_metadata_service_is_that_is_said_once_and_watching_ends() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        interruption = Interruption()
        warnings: list[str] = []

        await spot.watch(interruption, warnings.append, base_url=url)

        assert len(warnings) == 1
        assert f"no EC2 metadata service at {url}" in warnings[0]
        assert not interruption.is_requested
        assert await spot.describe(base_url=url) is None


async def test_a_service_that_gives_no_tokens_is_absent_too(metadata: MetadataServer) -> None:
    metadata.gives_tokens = False
    warnings: list[str] = []

    await spot.watch(Interruption(), warnings.append, base_url=metadata.url)

    assert len(warnings) == 1
    assert "it gives no token: 403" in warnings[0]


async def test_a_service_that_stops_answering_is_asked_on(metadata: MetadataServer) -> None:
    interruption = Interruption()
    warnings: list[str] = []
    watching = asyncio.create_task(spot.watch(interruption, warnings.append, base_url=metadata.url, poll_s=0.001))
    await asyncio.to_thread(metadata.wait_for, 3)
    metadata.gives_tokens = False
    metadata.expire()
    asked = len(metadata.requests)
    await asyncio.to_thread(metadata.wait_for, asked + 6)
    metadata.texts[spot.ACTION] = '{"action": "stop", "time": "2026-11-25T08:22:00Z"}'
    metadata.gives_tokens = True
    await asyncio.wait_for(watching, 30)

    assert interruption.is_requested
    assert len(warnings) == 1
    assert "stopped answering" in warnings[0]


async def test_something_that_is_no_metadata_service_is_absent() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await spot.describe(base_url=url) is None


@pytest.mark.parametrize("url", ["file:///etc/passwd", "169.254.169.254", "https://169.254.169.254", ""])
async def test_only_http_is_a_metadata_service(url: str) -> None:
    with pytest.raises(SpecError, match="must be an http:// URL"):
        await spot.describe(base_url=url)


async def test_the_environments_proxy_is_not_asked(metadata: MetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)

    assert await spot.describe(base_url=metadata.url) is not None

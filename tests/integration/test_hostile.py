"""A storm of hostile clients on a real gateway process: it lives, answers right, and gives back what it took.

What one wrong request is answered is told in `test_connection`, `test_doors` and `test_hostile_bodies`; here everything comes at
once, by the thousand. What is wrong in the store is in `test_hostile_store`.
"""

import asyncio
import contextlib
import http.client
import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.objectstore.local import LocalStore
from tests.support import footprints, gateways, models, storms
from tests.support.gateways import Gateway
from tests.support.storms import Attack, Door

SETTINGS = {
    "SERVER__HEAD_TIMEOUT_S": "2",
    "SERVER__BODY_TIMEOUT_S": "2",
    "SERVER__WRITE_TIMEOUT_S": "1",
    "RUNTIME__WORKERS": "1",
    "RUNTIME__TRIM_S": "0.2",
    "LEDGER__FLUSH_INTERVAL_S": "0.5",
}

GROWTH_BYTES_MAX = 24 << 20
"""Seven storms ended within 11 MB of the first: pieces of memory lie between others that are in use. A gateway that was made to
keep every body grew by 56 MB in one.
"""

THREADS_MORE = min(32, (os.cpu_count() or 1) + 4)
"""The event loop's own pool of threads grows to this many when it is needed, and stays."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(storms.publish(LocalStore(root)))
    environment = {f"STEELYARD_{name}": value for name, value in SETTINGS.items()}
    with gateways.running(root, tmp_path_factory.mktemp("gateway"), "--preload", "cnn", **environment) as running:
        yield running


Answers = list[tuple[int, Any]]
"""One for each of `storms.PREDICTIONS`."""


def answer(connection: http.client.HTTPConnection, door: Door) -> tuple[int, Any]:
    """Without the receipt, which is another one each time."""
    connection.request("POST", door.path, door.body, door.headers)
    response = connection.getresponse()
    body = response.read()
    if response.getheader("content-type") != "application/json":
        return response.status, body
    told = json.loads(body)
    told.pop("receipt", None)
    return response.status, told


@pytest.fixture(scope="module")
def right(gateway: Gateway) -> Answers:
    """What every door answers before the first storm."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=gateways.ANSWER_S)
    ) as connection:
        answers = [answer(connection, door) for door in storms.PREDICTIONS]
    assert {status for status, _ in answers} == {200}
    return answers


@contextlib.contextmanager
def served(gateway: Gateway, right: Answers) -> Iterator[None]:
    """A caller who keeps asking at every door meanwhile, and is given the right answer every time."""
    wrong: list[Any] = []
    is_over = threading.Event()
    rounds = 0

    def ask() -> None:
        nonlocal rounds
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=gateways.ANSWER_S)
        ) as connection:
            while rounds == 0 or not is_over.is_set():
                wrong.extend(
                    (door.path, told)
                    for door, expected in zip(storms.PREDICTIONS, right, strict=True)
                    if (told := answer(connection, door)) != expected
                )
                rounds += 1

    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(ask)
        try:
            yield
        finally:
            is_over.set()
        asking.result()
    assert not wrong, wrong[:3]


def failures(statuses: storms.Statuses) -> set[int]:
    """What is not the sender's fault. A mutated version of HTTP is."""
    return {status for status in statuses if status >= 500 and status != 505}


def is_well(gateway: Gateway) -> None:
    """It runs, and has logged no failure of its own."""
    assert gateway.process.poll() is None
    log = gateway.log.read_text()
    assert not [line for line in log.splitlines() if "Traceback" in line or '"level":"error"' in line], log


@pytest.mark.parametrize("attack", storms.ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused_and_others_are_served(gateway: Gateway, right: Answers, attack: Attack) -> None:
    with served(gateway, right):
        statuses = attack(gateway, random.Random(1))
    assert not failures(statuses), statuses
    is_well(gateway)


@pytest.mark.parametrize("more", [1, pytest.param(5, marks=pytest.mark.e2e)])
def test_memory_descriptors_and_threads_are_back_after_a_storm(gateway: Gateway, right: Answers, more: int) -> None:
    storm(gateway, seed=2)
    base = footprints.settled(gateway.process.pid)
    for seed in range(3, 3 + more):
        with served(gateway, right):
            storm(gateway, seed=seed)
        footprints.comes_within(gateway.process.pid, base, bytes_more=GROWTH_BYTES_MAX, threads_more=THREADS_MORE)
    assert storms.in_flight(gateway) == 0
    is_well(gateway)


def storm(gateway: Gateway, *, seed: int) -> None:
    """All attacks at once."""
    with ThreadPoolExecutor(len(storms.ATTACKS)) as attackers:
        attacks = [
            attackers.submit(attack, gateway, random.Random(seed * 1000 + at))
            for at, attack in enumerate(storms.ATTACKS)
        ]
        for attack in attacks:
            assert not failures(attack.result())


def test_what_large_bodies_took_is_given_back(tmp_path: Path) -> None:
    """Compared with the start, not with an earlier storm: what each thread's allocator keeps for itself is a part of this."""
    asyncio.run(models.publish_mlp(LocalStore(tmp_path)))
    with gateways.running(tmp_path, tmp_path, "--preload", "mlp", STEELYARD_RUNTIME__TRIM_S="0.2") as gateway:
        base = footprints.settled(gateway.process.pid)
        storms.growing_bodies(gateway, random.Random(1))
        footprints.comes_within(gateway.process.pid, base, bytes_more=GROWTH_BYTES_MAX, threads_more=THREADS_MORE)


def test_a_caller_who_leaves_while_its_model_is_looked_up_is_no_failure_of_ours(gateway: Gateway) -> None:
    for number in range(20):
        body = b'{"rows": []}'
        head = b"POST /v1/predict/nosuch%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (number, len(body))
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as caller:
            caller.sendall(head + body)
    assert gateway.post("/v1/predict/another", {"rows": []}).status == 404
    assert "never retrieved" not in gateway.log.read_text()

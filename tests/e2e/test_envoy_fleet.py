"""Three gateways behind the shipped Envoy file under load: one is killed, one comes, all restart, and 300 models find room."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from gateway.accounting import segment
from gateway.audit.verifying import Scope, verify
from gateway.cluster import envoyfile
from gateway.objectstore.local import LocalStore
from gateway.reports import hourproof
from tests.support import edges, gateways, models
from tests.support.clusters import Callers
from tests.support.edges import Edge
from tests.support.gateways import Gateway

pytestmark = pytest.mark.e2e

BODY = b'{"rows": [{"carrier": "AA", "origin": "JFK", "hour": 7, "distance": 733.0, "wind": null}]}'
ENVIRONMENT = {
    "STEELYARD_SERVER__LINGER_S": "2",  # Envoy asks for readiness each second
    "STEELYARD_LEDGER__FLUSH_INTERVAL_S": "0.2",
    "STEELYARD_ACCOUNTING__VCPUS": "1",
    "STEELYARD_ACCOUNTING__MEMORY_GB": "2",
}
CLIENTS = 8


def published(folder: Path, count: int) -> tuple[Path, list[str]]:
    root = folder / "store"
    root.mkdir()
    names = [f"m{number}" for number in range(count)]

    async def publish() -> None:
        for seed, name in enumerate(names):
            await models.publish_tiny(LocalStore(root), name, seed=seed)

    asyncio.run(publish())
    return root, names


class Fleet:
    """Gateways that a test starts and ends, and the Envoy before them."""

    def __init__(self, stack: contextlib.ExitStack, root: Path, folder: Path, count: int, **environment: str) -> None:
        self._start = lambda: stack.enter_context(gateways.running(root, folder, **ENVIRONMENT, **environment))
        self.gateways = [self._start() for _ in range(count)]

    def add(self) -> Gateway:
        self.gateways.append(self._start())
        return self.gateways[-1]


def recorded(root: Path) -> Counter[str]:
    """Request ids in the ledger's segments, all gateways together."""
    return Counter(
        request.id
        for path in root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz")
        for request in segment.decode(path.read_bytes()).requests
    )


def costs(root: Path) -> dict[str, int]:
    return {
        request.id: request.cost_picousd
        for path in root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz")
        for request in segment.decode(path.read_bytes()).requests
    }


def assert_adds_up(root: Path, callers: Callers, *, killed: str = "") -> None:
    """Every receipt is in the ledger once and with its cost, but for what a kill took of the last, unwritten moments."""
    counts, charged = recorded(root), costs(root)
    assert set(counts.values()) == {1}
    receipts = {
        answer.headers["steelyard-request-id"]: int(answer.headers["steelyard-cost-picousd"])
        for answer in callers.answers
    }
    missing = receipts.keys() - counts.keys()
    assert all(killed and request_id.startswith(killed) for request_id in missing)
    assert all(charged[request_id] == cost for request_id, cost in receipts.items() if request_id not in missing)
    verdict = asyncio.run(verify(LocalStore(root), Scope(), now_ns=time.time_ns(), reader=hourproof.read))
    assert verdict.faults == ()
    if not killed:
        assert sum(charged.values()) == sum(receipts.values())


def test_one_of_three_is_killed_under_load_and_no_request_fails(tmp_path: Path) -> None:
    root, names = published(tmp_path, 24)
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack, root, tmp_path, 3)
        edge = stack.enter_context(edges.running(tmp_path, fleet.gateways))
        with Callers(edge, names, BODY, CLIENTS) as callers:
            callers.await_more(500)
            dead = fleet.gateways[0]
            # One request of its own tells its name in request ids.
            killed = dead.post("/v1/predict/m0", BODY).headers["steelyard-request-id"].partition("-")[0]
            assert callers.instances()[killed] > 50, "it had its share"
            dead.kill()
            at = len(callers.answers)
            callers.await_more(4000)
        assert callers.failures == []
        assert callers.instances(at + CLIENTS).get(killed, 0) == 0
        assert len(callers.instances(at + CLIENTS)) == 2
        for gateway in fleet.gateways[1:]:
            assert gateway.terminate() == 0
        assert_adds_up(root, callers, killed=killed)


def test_a_gateway_that_comes_takes_its_share_and_no_request_fails(tmp_path: Path) -> None:
    root, names = published(tmp_path, 60)
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack, root, tmp_path, 3)
        edge = stack.enter_context(edges.running(tmp_path, fleet.gateways))
        with Callers(edge, names, BODY, CLIENTS) as callers:
            callers.await_more(600)
            before = homes(edge, names)
            new = fleet.add()
            edge.follow(fleet.gateways)
            callers.await_more(600)
            after = homes(edge, names)
        assert callers.failures == []
        own = new.post("/v1/predict/m0", BODY).headers["steelyard-request-id"].partition("-")[0]
        moved = [name for name in names if before[name] != after[name]]
        # A quarter of 60 models are its share; no more than a third move at all: the others stay where they are in memory.
        assert 5 <= sum(home == own for home in after.values()) <= 25
        assert len(moved) <= 30
        for gateway in fleet.gateways:
            assert gateway.terminate() == 0


def homes(edge: Edge, names: list[str]) -> dict[str, str]:
    """Who answers for each model now."""
    answers = {name: edge.post(f"/v1/predict/{name}", BODY) for name in names}
    return {name: answer.headers["steelyard-request-id"].partition("-")[0] for name, answer in answers.items()}


RESTARTS = 20


def test_twenty_restarts_one_after_the_other_under_load_fail_no_request(tmp_path: Path) -> None:
    root, names = published(tmp_path, 24)
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack, root, tmp_path, 3)
        edge = stack.enter_context(edges.running(tmp_path, fleet.gateways))
        with Callers(edge, names, BODY, CLIENTS) as callers:
            for _ in range(RESTARTS):
                callers.await_more(200)
                # As a platform does: told to stop while still in the list, and replaced by one with another address.
                oldest = fleet.gateways.pop(0)
                oldest.process.send_signal(signal.SIGTERM)
                fleet.add()
                edge.follow(fleet.gateways)
                assert oldest.process.wait(timeout=30) == 0
            callers.await_more(200)
        assert callers.failures == []
        assert len(callers.instances()) == 3 + RESTARTS
        for gateway in fleet.gateways:
            assert gateway.terminate() == 0
        assert_adds_up(root, callers)


MODELS, ROOM, REQUESTS = 300, 150, 3000


def test_300_models_find_room_in_three_gateways_that_hold_150_each(tmp_path: Path) -> None:
    root, names = published(tmp_path, MODELS)
    with gateways.running(root, tmp_path, **ENVIRONMENT) as one:
        assert one.post("/v1/predict/m0", BODY).status == 200
        weight = max(version["resident_bytes"] for version in one.get("/v1/loaded").json)
    room = {"STEELYARD_REPOSITORY__MEMORY_BYTES_MAX": str(ROOM * weight)}
    by_model = loads(root, names, tmp_path, envoyfile.shipped(), room)
    in_turn = loads(
        root, names, tmp_path, envoyfile.shipped().replace("lb_policy: MAGLEV", "lb_policy: ROUND_ROBIN"), room
    )
    assert by_model <= 2 * MODELS, f"{by_model} by model, {in_turn} in turn"
    assert in_turn > 2 * by_model, f"{by_model} by model, {in_turn} in turn"


def loads(root: Path, names: list[str], folder: Path, text: str, room: dict[str, str]) -> int:
    """How many loads three fresh gateways need for as many requests."""
    with contextlib.ExitStack() as stack:
        fleet = Fleet(stack, root, folder, 3, **room)
        edge = stack.enter_context(edges.running(folder, fleet.gateways, text=text))
        with Callers(edge, names, BODY, CLIENTS) as callers:
            callers.await_more(REQUESTS)
        assert callers.failures == []
        return sum(counted(gateway) for gateway in fleet.gateways)


def counted(gateway: Gateway) -> int:
    page = gateway.get("/metrics").body.decode()
    [value] = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith("steelyard_loads_total ")]
    return int(float(value))

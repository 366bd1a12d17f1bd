"""A gateway killed with SIGKILL under load, again and again in the same container, and what must be true of the ledger afterwards.

The bill is computed here, from the boots that the opening records state and the price list: the container was held from its first
boot until it closed for good, so its lives follow each other without a gap.
"""

import asyncio
import threading
import time
from fractions import Fraction
from pathlib import Path
from random import Random

import msgspec

from gateway.accounting import segment
from gateway.audit.findings import Verdict
from gateway.audit.verifying import Scope, verify
from gateway.contract import codec
from gateway.contract.ledger import Close, Open
from gateway.objectstore.local import LocalStore
from gateway.reports import hourproof
from tests.support import gateways, models
from tests.support.gateways import Gateway

CLIENTS = 4
ROW = dict(models.TINY_EXAMPLES.rows[0])
ENVIRONMENT = {
    "STEELYARD_ACCOUNTING__CONTAINER_ID": "box",
    "STEELYARD_ACCOUNTING__VCPUS": "2",
    "STEELYARD_ACCOUNTING__MEMORY_GB": "4",
    "STEELYARD_LEDGER__FLUSH_INTERVAL_S": "0.15",
}


class Receipt(msgspec.Struct, frozen=True):
    """What a client was told, and when it had heard."""

    request_id: str
    cost_picousd: int
    heard_ns: int


class Proof(msgspec.Struct, frozen=True):
    """After all rounds. `missing` are receipts that no record has: of the seconds that kills took."""

    lives: int
    receipts: int
    missing: int
    verdict: Verdict
    bill_picousd: int


def rounds(folder: Path, count: int, seed: int, *, ends_well: bool = True) -> Proof:
    """`count` lives that end in a kill at a random moment, and one more that `ends_well` or is killed too, with no life to follow.

    Raises `AssertionError`.
    """
    root = models.tiny_store(folder / "store")
    random = Random(seed)
    receipts: list[Receipt] = []
    for number in range(count + 1):
        with gateways.running(root, folder, **ENVIRONMENT) as gateway:
            _load(gateway, receipts, random.uniform(0, 0.8), is_killed=number < count or not ends_well)
    return _proven(root, receipts)


def _load(gateway: Gateway, receipts: list[Receipt], seconds: float, *, is_killed: bool) -> None:
    stop = threading.Event()
    clients = [threading.Thread(target=_predict, args=(gateway, stop, receipts)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    stop.wait(seconds)  # the moment of the kill is drawn, not waited for
    if is_killed:
        gateway.kill()
    else:
        assert gateway.terminate() == 0
    stop.set()
    for client in clients:
        client.join()


def _predict(gateway: Gateway, stop: threading.Event, receipts: list[Receipt]) -> None:
    while not stop.is_set():
        try:
            answer = gateway.post("/v1/predict/tiny", {"rows": [ROW] * 3})
        except (OSError, ValueError, gateways.http.client.HTTPException):
            return
        if answer.status == 200:
            cost = int(answer.headers["steelyard-cost-picousd"])
            receipts.append(Receipt(answer.headers["steelyard-request-id"], cost, time.time_ns()))


def _proven(root: Path, receipts: list[Receipt]) -> Proof:
    verdict = asyncio.run(verify(LocalStore(root), Scope(), now_ns=time.time_ns(), reader=hourproof.read))
    assert verdict.faults == ()
    opens = sorted(
        (codec.decode(path.read_bytes(), Open) for path in root.glob("ledger/v1/containers/box/*-open.json")),
        key=lambda opened: opened.boot_ns,
    )
    ends = [*(opened.boot_ns for opened in opens[1:]), _end_ns(root, opens[-1])]
    *killed, last = [end_ns - opened.boot_ns for opened, end_ns in zip(opens, ends, strict=True)]
    # The last one ended, and nobody went on with its container: Fargate bills whole seconds, a minute at least.
    bill = sum(_bill(age_ns) for age_ns in killed) + _bill(max(60, -(-last // 10**9)) * 10**9)
    assert verdict.charged_picousd + verdict.unattributed_picousd == bill
    return Proof(len(opens), len(receipts), _missing(root, receipts), verdict, bill)


def _end_ns(root: Path, last: Open) -> int:
    """Of the last life: as it said, else its last sign of life."""
    closes = [codec.decode(path.read_bytes(), Close) for path in root.glob("ledger/v1/containers/box/*-close.json")]
    if closes:
        [close] = closes
        return close.closed_ns
    paths = root.glob(f"ledger/v1/dt=*/hr=*/box/{last.boot_ns}-*.jsonl.gz")
    return max([last.opened_ns, *(segment.decode(path.read_bytes()).header.to_ns for path in paths)])


def _missing(root: Path, receipts: list[Receipt]) -> int:
    """How many receipts have no record. Raises when a request has two, another cost, or is missing and a later one is not."""
    recorded: dict[str, int] = {}
    written_ns: dict[str, int] = {}  # by process, which begins all of its request ids alike
    for path in sorted(root.glob("ledger/v1/dt=*/hr=*/box/*.jsonl.gz")):
        parsed = segment.decode(path.read_bytes())
        for request in parsed.requests:
            assert request.id not in recorded, f"{request.id} is recorded twice"
            recorded[request.id] = request.cost_picousd
            written_ns[_process(request.id)] = parsed.header.to_ns
    missing = [receipt for receipt in receipts if receipt.request_id not in recorded]
    for receipt in receipts:
        assert recorded.get(receipt.request_id, receipt.cost_picousd) == receipt.cost_picousd
    for receipt in missing:
        # Heard after it was charged; two readings of one machine's clock differ by less than these 50 ms.
        end_ns = written_ns.get(_process(receipt.request_id), 0)
        assert receipt.heard_ns > end_ns - 50_000_000, f"{receipt} is of a written segment and lost"
    return len(missing)


def _process(request_id: str) -> str:
    return request_id.partition("-")[0]


def _bill(age_ns: int) -> int:
    hours = Fraction(age_ns, 3600 * 10**9)
    return round(Fraction("0.04048") * 2 * hours * 10**12) + round(Fraction("0.004445") * 4 * hours * 10**12)

"""What a prediction is made of on its way through the data plane: what came in, what a door read and wrote, what it used and cost.

Records and protocols only; `gateway.dataplane` is what happens to them. Doors are in `gateway.http`, the charger is
`gateway.opening`'s view of the meter, observers are in `gateway.telemetry`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from gateway.access.caller import Caller
from gateway.accounting.usage import Usage
from gateway.contract.ledger import Outcome
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.runtime.parts import Ragged
from gateway.runtime.tensors import Tensors

Buffer = bytes | memoryview


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What a caller sent: the decompressed body, and headers by lower-case name."""

    body: Buffer
    headers: Mapping[bytes, bytes] = {}


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """What a door read. `asked` is the door's own memory of the request, handed back to `encode`.

    `timeout_us` and `priority` are what the body itself asks for (0: nothing); a header wins over them. `ragged` says which rows
    the door padded. `rest` is what is left to read where that would hold the event loop for too long: pure CPU, called in a thread
    with what says that nobody waits any more, it gives the inputs, or None in that case.
    """

    inputs: Tensors
    rows: int
    asked: object = None
    timeout_us: int = 0
    priority: int = 0
    ragged: Ragged | None = None
    rest: Callable[[Callable[[], bool]], tuple[Tensors, Ragged] | None] | None = None


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """An answer's body, its content type, and the headers that the wire format needs besides."""

    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Door(Protocol):
    """One wire format. Both methods are pure CPU and are billed to the request."""

    name: str

    def decode(self, sent: Sent, resident: Resident[LoadedModel]) -> Decoded:
        """Raises `InvalidInput` naming the field."""
        ...

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> Encoded: ...

    def seal(self, prediction: "Prediction") -> bytes:
        """The body as it is sent: what `encode` made, with the receipt when the format has a place for it. Not billed."""
        ...


class Call(msgspec.Struct, frozen=True, gc=False):
    """One prediction call as it came in. `arrived_ns` and deadlines are on `perf_counter_ns`'s clock.

    `caller` has been let in. `timeout_ms` 0 means: what the body says, else the default. `key` makes a choice of canary stick.
    """

    request_id: str
    model: str
    version: str | None
    sent: Sent
    door: Door
    arrived_ns: int
    caller: Caller
    key: str = ""
    timeout_ms: int = 0
    priority: int = 0


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What the caller is told: `cost_picousd` is the direct cost, final at once (None: vCPUs have no price here).

    `cost_full_picousd_estimated` adds idle and shared costs as the last window had them; exact they are in the cost report only.
    `response_bytes` counts the prediction, not this receipt.
    """

    request_id: str
    model: str
    version: int
    variant: str
    rows: int
    cpu_ns: int
    queue_ns: int
    run_ns: int
    batch_rows: int
    request_bytes: int
    response_bytes: int
    cost_picousd: int | None
    price_book: str
    cost_full_picousd_estimated: int | None = None


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The encoded answer, its receipt and the usage behind it."""

    answer: Encoded
    receipt: Receipt
    usage: Usage


class Charger(Protocol):
    """Turns usage into an integer cost and remembers it; `gateway.accounting` does."""

    price_book: str

    def charge(self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome) -> int: ...

    def quoted(self, cost_picousd: int) -> tuple[int | None, int | None]:
        """What the caller is told of it: the direct cost, and an estimate of the full one; None where nobody knows."""
        ...


class Observer(Protocol):
    """Is told of every call whose model was there, after it was charged; `gateway.telemetry` counts."""

    def observe(
        self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome, cost_picousd: int
    ) -> None: ...


class RowSampler(Protocol):
    """Is offered the tensors of every call that is answered; `gateway.features` counts some of their rows."""

    def offer(self, name: str, version: int, inputs: Tensors, outputs: Tensors, rows: int, body_bytes: int) -> None: ...

"""THE HOT PATH: one prediction from bytes to receipt. No HTTP in here; `gateway.http` calls it, through either door.

A door decodes a body into tensors and encodes tensors into a body. Whatever happens to a call whose model is there, ok or not, the
meter is charged exactly once. A call that fails or is cut off while a worker runs it is charged for this thread's CPU only.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter_ns, thread_time_ns
from typing import Protocol

import msgspec

from gateway.contract.ledger import Outcome
from gateway.errors import DeadlineExceeded, InvalidInput, Overloaded, RequestError
from gateway.repository.residents import Repository, Resident
from gateway.runtime.admission import Admission
from gateway.runtime.model import LoadedModel
from gateway.runtime.tensors import Tensors


class Decoded(msgspec.Struct, frozen=True):
    """What a door read from a body. `asked` is the door's own memory of the request, handed back to `encode`."""

    inputs: Tensors
    rows: int
    asked: object = None


class Door(Protocol):
    """One wire format. Both methods are pure CPU and are billed to the request."""

    name: str

    def decode(self, body: bytes, resident: Resident[LoadedModel]) -> Decoded:
        """Raises `InvalidInput` naming the field."""
        ...

    def encode(self, outputs: Tensors, decoded: Decoded, resident: Resident[LoadedModel]) -> bytes: ...


class Call(msgspec.Struct, frozen=True):
    """One prediction call as it came in."""

    request_id: str
    model: str
    version: int | None
    body: bytes
    door: Door
    tenant: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What one call used: the single measurement behind the headers, the metrics and the ledger.

    `cpu_ns` is CPU time of decode, run (its share of a batch) and encode; the other times are elapsed.
    """

    cpu_ns: int = 0
    decode_ns: int = 0
    encode_ns: int = 0
    queue_ns: int = 0
    run_ns: int = 0
    rows: int = 0
    batch_rows: int = 0
    request_bytes: int = 0
    response_bytes: int = 0


class Receipt(msgspec.Struct, frozen=True):
    """What the caller is told: `cost_picousd` is the direct cost, final at once; idle and shared time are in the cost report.

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
    cost_picousd: int
    price_book: str


class Prediction(msgspec.Struct, frozen=True):
    """The encoded answer, its receipt and the usage behind it."""

    body: bytes
    receipt: Receipt
    usage: Usage


class Charger(Protocol):
    """Turns usage into an integer cost and remembers it; `gateway.accounting` does."""

    price_book: str

    def charge(self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome) -> int: ...


class DataPlane:
    """Everything a prediction passes through, wired by `gateway.bootstrap`."""

    def __init__(
        self, repository: Repository[LoadedModel], admission: Admission, charger: Charger, *, timeout_s: float
    ) -> None:
        self._repository = repository
        self.admission = admission
        self._charger = charger
        self._timeout_s = timeout_s

    async def infer(self, call: Call) -> Prediction:
        """The answer and its receipt. Raises a `GatewayError`; what was spent on it is charged all the same."""
        self.admission.enter()
        try:
            resident = self._repository.resident(call.model, call.version) or await self._load(call)
            work = _Work(call, resident)
            try:
                work.decode()
                if resident.model.is_inline(work.rows):
                    work.run_inline()
                else:
                    await self._run(work)
                body = work.encode()
            except BaseException as error:
                self._charger.charge(call, resident, work.usage(), _outcome(error))
                raise
            return self._prediction(call, resident, body, work.usage())
        finally:
            self.admission.leave()

    async def _load(self, call: Call) -> Resident[LoadedModel]:
        async with _deadline(self._timeout_s, "loading the model"):
            return await self._repository.ready(call.model, call.version)

    async def _run(self, work: "_Work") -> None:
        async with _deadline(self._timeout_s, "running the model"):
            await work.run()

    def _prediction(self, call: Call, resident: Resident[LoadedModel], body: bytes, usage: Usage) -> Prediction:
        receipt = Receipt(
            request_id=call.request_id,
            model=resident.name,
            version=resident.version,
            variant=resident.variant.id,
            rows=usage.rows,
            cpu_ns=usage.cpu_ns,
            queue_ns=usage.queue_ns,
            run_ns=usage.run_ns,
            batch_rows=usage.batch_rows,
            request_bytes=usage.request_bytes,
            response_bytes=usage.response_bytes,
            cost_picousd=self._charger.charge(call, resident, usage, "ok"),
            price_book=self._charger.price_book,
        )
        return Prediction(body, receipt, usage)


class _Work:
    """One call's steps and what they use. The thread's CPU clock runs from the first step to the last, but not while waiting."""

    def __init__(self, call: Call, resident: Resident[LoadedModel]) -> None:
        self._call = call
        self._resident = resident
        self._decode_ns = self._run_ns = self._encode_ns = self._queue_ns = 0
        self._batch_rows = self._response_bytes = 0
        self._cpu_ns = -thread_time_ns()
        self._is_waiting = False
        self.rows = 0

    def decode(self) -> None:
        began_ns = perf_counter_ns()
        try:
            self._decoded = self._call.door.decode(self._call.body, self._resident)
        finally:
            self._decode_ns = perf_counter_ns() - began_ns
        self.rows = self._batch_rows = self._decoded.rows

    def run_inline(self) -> None:
        began_ns = perf_counter_ns()
        try:
            self._outputs = self._resident.model.run_inline(self._decoded.inputs)
        finally:
            self._run_ns = perf_counter_ns() - began_ns

    async def run(self) -> None:
        self._cpu_ns += thread_time_ns()
        self._is_waiting = True
        share = await self._resident.model.run(self._decoded.inputs, self.rows)
        self._is_waiting = False
        self._cpu_ns += share.cpu_ns - thread_time_ns()
        self._outputs = share.outputs
        self._run_ns, self._queue_ns, self._batch_rows = share.run_ns, share.queue_ns, share.batch_rows

    def encode(self) -> bytes:
        began_ns = perf_counter_ns()
        body = self._call.door.encode(self._outputs, self._decoded, self._resident)
        self._encode_ns = perf_counter_ns() - began_ns
        self._response_bytes = len(body)
        return body

    def usage(self) -> Usage:
        """Ends the measurement; called once."""
        return Usage(
            cpu_ns=self._cpu_ns + (0 if self._is_waiting else thread_time_ns()),
            decode_ns=self._decode_ns,
            encode_ns=self._encode_ns,
            queue_ns=self._queue_ns,
            run_ns=self._run_ns,
            rows=self.rows,
            batch_rows=self._batch_rows,
            request_bytes=len(self._call.body),
            response_bytes=self._response_bytes,
        )


@asynccontextmanager
async def _deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """`asyncio.timeout` that ends in our own error."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what} took longer than {seconds:g} s") from error


def _outcome(error: BaseException) -> Outcome:
    match error:
        case InvalidInput():
            return "invalid"
        case Overloaded():
            return "shed"
        case DeadlineExceeded():
            return "timed_out"
        case asyncio.CancelledError():
            return "cancelled"
        case RequestError():
            return "invalid"
        case _:
            return "failed"

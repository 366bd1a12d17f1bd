"""THE HOT PATH: one prediction from bytes to receipt. No HTTP in here; `gateway.http` calls it, through either door.

A door decodes a body into tensors and encodes tensors into a body. Whatever happens to an admitted call, ok or not, the meter is
charged exactly once, with the CPU that was really spent.
"""

import asyncio
from time import thread_time_ns
from typing import Protocol

import msgspec

from gateway.contract.ledger import Outcome
from gateway.errors import DeadlineExceeded, InvalidInput, Overloaded, RequestError
from gateway.repository.residents import Repository, Resident
from gateway.runtime.admission import Admission
from gateway.runtime.batcher import BatchShare
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
    """What one call used: the single measurement behind the headers, the metrics and the ledger."""

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
    """What the caller is told: `cost_picousd` is the direct cost, final at once; idle and shared time are in the cost report."""

    request_id: str
    model: str
    version: int
    variant: str
    rows: int
    cpu_ns: int
    queue_ns: int
    run_ns: int
    batch_rows: int
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
        self._admission = admission
        self._charger = charger
        self._timeout_s = timeout_s

    async def infer(self, call: Call) -> Prediction:
        """The answer and its receipt. Raises a `GatewayError`; what was spent on it is charged all the same."""
        with self._admission.admit(len(call.body)):
            resident = self._repository.resident(call.model, call.version) or await self._load(call)
            work = _Work(call, resident)
            try:
                decoded = work.decode()
                share = await self._run(resident, decoded)
                body = work.encode(share, decoded)
            except BaseException as error:
                self._charger.charge(call, resident, work.usage(), _outcome(error))
                raise
            return self._prediction(call, resident, body, work.usage())

    async def _load(self, call: Call) -> Resident[LoadedModel]:
        async with self._deadline("loading the model"):
            return await self._repository.ready(call.model, call.version)

    async def _run(self, resident: Resident[LoadedModel], decoded: Decoded) -> BatchShare:
        async with self._deadline("running the model"):
            return await resident.model.run(decoded.inputs, decoded.rows)

    def _deadline(self, what: str) -> "_Deadline":
        return _Deadline(self._timeout_s, what)

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
            cost_picousd=self._charger.charge(call, resident, usage, "ok"),
            price_book=self._charger.price_book,
        )
        return Prediction(body, receipt, usage)


class _Work:
    """Measures one call's steps: CPU on this thread for decode and encode, the batch's share for the run."""

    def __init__(self, call: Call, resident: Resident[LoadedModel]) -> None:
        self._call = call
        self._resident = resident
        self._decode_ns = self._encode_ns = self._rows = self._response_bytes = 0
        self._share: BatchShare | None = None

    def decode(self) -> Decoded:
        began_ns = thread_time_ns()
        try:
            decoded = self._call.door.decode(self._call.body, self._resident)
        finally:
            self._decode_ns = thread_time_ns() - began_ns
        self._rows = decoded.rows
        return decoded

    def encode(self, share: BatchShare, decoded: Decoded) -> bytes:
        self._share = share
        began_ns = thread_time_ns()
        body = self._call.door.encode(share.outputs, decoded, self._resident)
        self._encode_ns = thread_time_ns() - began_ns
        self._response_bytes = len(body)
        return body

    def usage(self) -> Usage:
        share = self._share
        return Usage(
            cpu_ns=self._decode_ns + self._encode_ns + (share.cpu_ns if share else 0),
            decode_ns=self._decode_ns,
            encode_ns=self._encode_ns,
            queue_ns=share.queue_ns if share else 0,
            run_ns=share.run_ns if share else 0,
            rows=self._rows,
            batch_rows=share.batch_rows if share else 0,
            request_bytes=len(self._call.body),
            response_bytes=self._response_bytes,
        )


class _Deadline:
    """`asyncio.timeout` that ends in our own error, and costs nothing when the body does not wait."""

    def __init__(self, seconds: float, what: str) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._seconds = seconds
        self._what = what

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)  # type: ignore[arg-type]  # a traceback, passed on as it came
        except TimeoutError as timeout:
            raise DeadlineExceeded(f"{self._what} took longer than {self._seconds:g} s") from timeout


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

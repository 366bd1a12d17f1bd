"""THE HOT PATH: one prediction from bytes to receipt. No HTTP in here; `gateway.http` calls it, through any door.

A door decodes what was sent into tensors and encodes tensors into an answer. `start` does all of it at once when the model is in
memory and its run short; otherwise `finish` waits for the load or for a worker. Whatever happens to a call whose model is there,
ok or not, the meter is charged exactly once and the observer told exactly once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter_ns, thread_time_ns

import msgspec

from gateway.accounting.usage import Usage
from gateway.calls import Call, Charger, Encoded, Observer, Prediction, Receipt, RowSampler
from gateway.contract.ledger import Outcome
from gateway.errors import DeadlineExceeded, InvalidInput, Overloaded, RequestError
from gateway.repository.residents import Repository, Resident
from gateway.repository.shadows import ShadowRun
from gateway.runtime.admission import Admission
from gateway.runtime.model import LoadedModel
from gateway.runtime.parts import Ragged
from gateway.runtime.spent import Spent
from gateway.runtime.tensors import Tensors

READING_MAX = 2
"""Requests whose rest is read in threads at once: they compete with runs for the CPUs. Others wait as long as their deadlines let
them; `admission` bounds how many there are."""


class Pending(msgspec.Struct, frozen=True):
    """A call that has to wait. `work` is there when its model was in memory and its body is decoded already."""

    call: Call
    work: "_Work | None"


class DataPlane:
    """Everything a prediction passes through, wired by `gateway.bootstrap`."""

    def __init__(
        self,
        repository: Repository[LoadedModel],
        admission: Admission,
        charger: Charger,
        observers: tuple[Observer, ...] = (),
        *,
        timeout_s: float,
        sampler: RowSampler | None = None,
    ) -> None:
        self._repository = repository
        self.admission = admission
        self._charger = charger
        self._observers = observers
        self._sampler = sampler
        self._timeout_ns = round(timeout_s * 1e9)
        self._reading = asyncio.Semaphore(READING_MAX)

    def start(self, call: Call) -> Prediction | Pending:
        """The answer when nothing has to be waited for, else what `finish` takes and `drop` then ends.

        Raises a `GatewayError`, charged all the same.
        """
        self.admission.check()
        resident = self._repository.resident(call.model, call.version, call.key)
        begun = Pending(call, None) if resident is None else self._begin(call, resident)
        if isinstance(begun, Pending):
            self.admission.enter(
                len(call.sent.body)
            )  # here, not in `finish`: many start before the first of them goes on
        return begun

    def _begin(self, call: Call, resident: Resident[LoadedModel]) -> Prediction | Pending:
        work = _Work(call, resident)
        resident.use.running += 1
        try:
            work.decode()
            if work.is_unread or not resident.model.is_inline(work.rows):
                work.wait()
                return Pending(call, work)
            work.refuse_when_late(self._timeout_ns)
            work.run_inline()
            work.encode()
        except BaseException as error:
            self._settle(work, _outcome(error))
            raise
        return self._prediction(work)

    async def finish(self, pending: Pending) -> Prediction:
        """The answer and its receipt. Raises a `GatewayError`; what was spent on it is charged all the same."""
        work = pending.work
        if work is None:
            begun = await self._loaded(pending.call)
            if isinstance(begun, Prediction):
                return begun
            work = begun.work
            assert work is not None
        try:
            deadline_ns = work.deadline_ns(self._timeout_ns)
            if work.is_unread:
                async with _deadline(deadline_ns, "reading the texts"), self._reading:
                    await work.read_rest()
            await work.run(deadline_ns)
            work.encode()
        except BaseException as error:
            self._settle(work, _outcome(error))
            raise
        return self._prediction(work)

    def drop(self, pending: Pending) -> None:
        """Exactly once for each `Pending`, when `finish` has ended or will never begin: what was spent is charged if it was not."""
        self.admission.leave(len(pending.call.sent.body))
        if pending.work is not None and not pending.work.is_settled:
            self._settle(pending.work, "cancelled")

    async def _loaded(self, call: Call) -> Prediction | Pending:
        """Load the model, then begin: short runs are then over at once."""
        until_ns = call.arrived_ns + min(call.timeout_ms * 1_000_000 or self._timeout_ns, self._timeout_ns)
        async with _deadline(until_ns, "loading the model"):
            return self._begin(call, await self._repository.ready(call.model, call.version, call.key))

    def _prediction(self, work: "_Work") -> Prediction:
        usage, cost_picousd = self._settle(work, "ok")
        call, resident = work.call, work.resident
        direct_picousd, full_picousd = self._charger.quoted(cost_picousd)
        # Positional, in the order of `Receipt`: a third of the time that keywords take.
        receipt = Receipt(
            call.request_id, resident.name, resident.version, resident.variant.id, usage.rows, usage.cpu_ns, usage.queue_ns,
            usage.run_ns, usage.batch_rows, usage.request_bytes, usage.response_bytes, direct_picousd, self._charger.price_book,
            full_picousd,
        )  # fmt: skip
        if (shadow := self._repository.shadow(call.model, call.version, resident)) is not None:
            work.mirror(shadow)
        if self._sampler is not None:
            work.offer(self._sampler)
        return Prediction(work.answer, receipt, usage)

    def _settle(self, work: "_Work", outcome: Outcome) -> tuple[Usage, int]:
        work.is_settled = True
        work.resident.use.running -= 1
        usage = work.usage()
        cost_picousd = self._charger.charge(work.call, work.resident, usage, outcome)
        for observer in self._observers:
            observer.observe(work.call, work.resident, usage, outcome, cost_picousd)
        return usage, cost_picousd


class _Work:
    """One call's steps and what they use. The thread's CPU clock runs from the first step to the last, but not while waiting."""

    __slots__ = (
        "_batch_rows",
        "_cpu_ns",
        "_decode_ns",
        "_decoded",
        "_encode_ns",
        "_is_waiting",
        "_outputs",
        "_queue_ns",
        "_run_ns",
        "answer",
        "call",
        "is_settled",
        "resident",
        "rows",
    )

    def __init__(self, call: Call, resident: Resident[LoadedModel]) -> None:
        self.call = call
        self.resident = resident
        self.rows = self._batch_rows = 0
        self.answer = _NOTHING
        self.is_settled = False
        self._decode_ns = self._run_ns = self._encode_ns = self._queue_ns = 0
        self._is_waiting = False
        self._cpu_ns = -thread_time_ns()

    def deadline_ns(self, default_ns: int) -> int:
        """When the answer is due: the header's wish, else the body's, else the default, never later than that."""
        wish_ns = self.call.timeout_ms * 1_000_000 or self._decoded.timeout_us * 1000 or default_ns
        return self.call.arrived_ns + min(wish_ns, default_ns)

    def decode(self) -> None:
        began_ns = perf_counter_ns()
        try:
            self._decoded = self.call.door.decode(self.call.sent, self.resident)
        finally:
            self._decode_ns = perf_counter_ns() - began_ns
        self.rows = self._batch_rows = self._decoded.rows

    @property
    def is_unread(self) -> bool:
        """Whether a part of the request is still to be read, in a thread."""
        return self._decoded.rest is not None

    async def read_rest(self) -> None:
        """The thread's CPU is billed as that of `decode`; what it does after its caller left is `overhead`."""
        rest = self._decoded.rest
        assert rest is not None
        is_over = False

        def read() -> tuple[Tensors, Ragged] | None:
            began_ns, cpu_ns = perf_counter_ns(), thread_time_ns()
            try:
                return rest(lambda: is_over)
            finally:
                self._cpu_ns += thread_time_ns() - cpu_ns
                self._decode_ns += perf_counter_ns() - began_ns

        try:
            found = await asyncio.to_thread(read)
        finally:
            is_over = True
        assert found is not None
        inputs, ragged = found
        self._decoded = msgspec.structs.replace(self._decoded, inputs=inputs, ragged=ragged, rest=None)

    def refuse_when_late(self, default_ns: int) -> None:
        """Raises `DeadlineExceeded` when the answer is due already: workers see to that, a run on this thread has only us."""
        if self.deadline_ns(default_ns) <= perf_counter_ns():
            raise DeadlineExceeded("the request's deadline passed before its run could begin; give it a later one")

    def run_inline(self) -> None:
        began_ns = perf_counter_ns()
        try:
            self._outputs = self.resident.model.run_inline(self._decoded.inputs)
        finally:
            self._run_ns = perf_counter_ns() - began_ns

    def wait(self) -> None:
        """Stop the CPU clock: others use this thread until a worker has run us."""
        self._cpu_ns += thread_time_ns()
        self._is_waiting = True

    async def run(self, deadline_ns: int) -> None:
        spent = Spent()
        priority = self.call.priority or self._decoded.priority
        try:
            share = await self.resident.model.run(
                self._decoded.inputs,
                self.rows,
                deadline_ns=deadline_ns,
                priority=priority,
                spent=spent,
                ragged=self._decoded.ragged,
            )
            self._outputs = share.outputs
        finally:
            self._is_waiting = False
            self._cpu_ns += spent.cpu_ns - thread_time_ns()
            self._run_ns, self._queue_ns, self._batch_rows = spent.run_ns, spent.queue_ns, spent.batch_rows

    def encode(self) -> None:
        began_ns = perf_counter_ns()
        self.answer = self.call.door.encode(self._outputs, self._decoded, self.resident)
        self._encode_ns = perf_counter_ns() - began_ns

    def mirror(self, shadow: ShadowRun) -> None:
        """Let a shadow version run the same inputs later."""
        shadow.mirror(self._decoded.inputs, self._outputs, run_ns=self._run_ns)

    def offer(self, sampler: RowSampler) -> None:
        """Let rows of this call be counted later. It is charged already: what that costs is nobody's."""
        resident, body_bytes = self.resident, len(self.call.sent.body)
        sampler.offer(resident.name, resident.version, self._decoded.inputs, self._outputs, self.rows, body_bytes)

    def usage(self) -> Usage:
        """Ends the measurement; called once."""
        # Positional, in the order of `Usage`.
        return Usage(
            self._cpu_ns + (0 if self._is_waiting else thread_time_ns()), self._decode_ns, self._encode_ns, self._queue_ns,
            self._run_ns, perf_counter_ns() - self.call.arrived_ns, self.rows, self._batch_rows, len(self.call.sent.body),
            len(self.answer.body),
        )  # fmt: skip


_NOTHING = Encoded(b"")


@asynccontextmanager
async def _deadline(until_ns: int, what: str) -> AsyncIterator[None]:
    """`asyncio.timeout` that ends in our own error."""
    seconds = (until_ns - perf_counter_ns()) / 1e9
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what} did not end before the request's deadline") from error


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

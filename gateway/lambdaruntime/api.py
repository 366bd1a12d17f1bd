"""Lambda's Runtime API (2018-06-01) and as much of its Extensions API (2020-01-01) as tells a process that it is stopped.

Both as the AWS Lambda developer guide describes them. `gateway.lambdaruntime.serving` asks; `gateway.cli.serve` tells of a start
that failed.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import msgspec

from gateway.errors import GatewayError, SettingsError
from gateway.lambdaruntime import RUNTIME_API
from gateway.lambdaruntime.exchange import Address, Answer, AnswerTooLong, encode, exchange

_RUNTIME = "/2018-06-01/runtime"
_EXTENSION = "/2020-01-01/extension"
_NAME = "steelyard"
EVENT_BYTES_MAX = 16 * 1024 * 1024  # Lambda hands out 6 MB at most; this is for what surrounds them
POST_TIMEOUT_S = 10.0  # of 6 MB within this machine


class Invocation(msgspec.Struct, frozen=True):
    """`deadline_ms` since the Unix epoch; `trace` is X-Ray's header, or empty; `event` is JSON."""

    id: str
    deadline_ms: int
    trace: str
    event: bytes


class RuntimeApi:
    """Every call raises `GatewayError` when Lambda is not there or has given this process up: then it has to end."""

    def __init__(self, address: str) -> None:
        """`address` is what `RUNTIME_API` says. Raises `SettingsError`."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise SettingsError(f"{RUNTIME_API} must be HOST:PORT, as Lambda sets it")
        self._address = Address(host, int(port))

    async def next(self) -> Invocation:
        """Waits as long as it takes: Lambda freezes the process meanwhile, so that no time-out would mean anything."""
        answer = await self._send("GET", f"{_RUNTIME}/invocation/next")
        headers = answer.headers
        try:
            return Invocation(
                headers["lambda-runtime-aws-request-id"],
                int(headers["lambda-runtime-deadline-ms"]),
                headers.get("lambda-runtime-trace-id", ""),
                answer.body,
            )
        except (KeyError, ValueError) as error:
            raise GatewayError(f"Lambda's Runtime API handed out no invocation, but {answer.status}") from error

    async def respond(self, invocation: str, payload: bytes) -> int:
        """The status: 202, or 413 and others for what Lambda does not take."""
        return await self._post(f"{_RUNTIME}/invocation/{invocation}/response", payload, {})

    async def fail(self, invocation: str, kind: str, sentence: str) -> int:
        """The invocation failed; `kind` is CATEGORY.REASON. The status, as above."""
        return await self._post(f"{_RUNTIME}/invocation/{invocation}/error", *_error(kind, sentence))

    async def fail_init(self, kind: str, sentence: str) -> int:
        """The process cannot serve and is about to end."""
        return await self._post(f"{_RUNTIME}/init/error", *_error(kind, sentence))

    async def register(self) -> str:
        """As an internal extension without events, before the first `next`; its identifier, or empty when Lambda refuses.

        Lambda sends SIGTERM, and waits 500 ms before SIGKILL, only where an extension is registered. An internal one may not ask
        for SHUTDOWN, and needs no event for this: AWS's own Rust runtime does the same (spawn_graceful_shutdown_handler).
        """
        headers = {"lambda-extension-name": _NAME, "content-type": "application/json"}
        async with asyncio.timeout(POST_TIMEOUT_S):
            answer = await self._send("POST", f"{_EXTENSION}/register", b'{"events":[]}', headers)
        return answer.headers.get("lambda-extension-identifier", "")

    async def next_extension_event(self, identifier: str) -> None:
        """Without this Lambda takes the extension for one that is still starting. Nothing ever comes."""
        await self._send("GET", f"{_EXTENSION}/event/next", headers={"lambda-extension-identifier": identifier})

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        try:
            async with asyncio.timeout(POST_TIMEOUT_S):
                answer = await self._send("POST", path, body, {"content-type": "application/json"} | headers)
        except TimeoutError as error:
            raise GatewayError(f"Lambda's Runtime API took nothing within {POST_TIMEOUT_S:g} s") from error
        return answer.status

    async def _send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        where = f"{self._address.host}:{self._address.port}"
        request = encode(method, path, {"host": where} | (headers or {}), body)
        try:
            answer = await exchange(self._address, request, body_bytes_max=EVENT_BYTES_MAX)
        except OSError as error:
            raise GatewayError(f"Lambda's Runtime API at {where} ({RUNTIME_API}) is not there: {error}") from error
        except AnswerTooLong as error:
            raise GatewayError(f"Lambda's Runtime API sent an event beyond {EVENT_BYTES_MAX} bytes") from error
        if answer.status >= 500:
            raise GatewayError(f"Lambda's Runtime API answers {answer.status}: this process can do no more")
        return answer


@contextlib.contextmanager
def told(address: str) -> Iterator[None]:
    """What ends the start within is told to Lambda, whose log and caller then have the sentence; it is raised all the same.

    What ends the process later is told too, and not heard: after the start Lambda answers 403.
    """
    try:
        yield
    except Exception as error:
        sentence = str(error) if isinstance(error, GatewayError) else "internal error; see the log"
        with contextlib.suppress(GatewayError):  # told or not, the process ends, and says why on stderr
            asyncio.run(RuntimeApi(address).fail_init(f"Steelyard.{type(error).__name__}", sentence))
        raise


def _error(kind: str, sentence: str) -> tuple[bytes, dict[str, str]]:
    body = msgspec.json.encode({"errorMessage": sentence, "errorType": kind})
    return body, {"lambda-runtime-function-error-type": kind}

"""Asks EC2's metadata service whether this spot instance will be taken away, and what instance it is. Standard library only.

IMDSv2: a token by PUT, then GETs that carry it; 404 from `spot/instance-action` means nothing is planned. AWS announces two minutes
ahead (docs.aws.amazon.com/AWSEC2, "Spot Instance interruption notices") and advises to ask every 5 s. Called by a run.
"""

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from trainers.errors import SpecError
from trainers.interruption.signals import Interruption

BASE_URL = "http://169.254.169.254"
POLL_S = 5.0
TIMEOUT_S = 2.0  # it answers from the same host; where there is none, the start of a run should not wait longer
TOKEN_S = 21_600  # the longest that the service grants
ANSWER_BYTES_MAX = 4096

ACTION = "spot/instance-action"


class Instance(msgspec.Struct, frozen=True):
    """What an attempt's cost is computed from; `market` is `spot`, `on-demand` or another word of `instance-life-cycle`."""

    instance_type: str
    zone: str
    market: str


class Notice(msgspec.Struct, frozen=True):
    """`{"action": "terminate", "time": "2026-11-25T08:22:00Z"}`; the action may also be `stop` or `hibernate`."""

    action: str
    time: Annotated[datetime, Meta(tz=True)]


class Absent(Exception):
    """No metadata service answers here, or it refuses tokens."""


class Metadata:
    """Blocking calls to one metadata service. The token stays in here."""

    def __init__(self, base_url: str = BASE_URL) -> None:
        """Raises `SpecError` for what is no http URL."""
        if not base_url.startswith("http://"):
            raise SpecError(f"the metadata service '{base_url}' must be an http:// URL, such as {BASE_URL}")
        self._base_url = base_url.rstrip("/")
        # Without the environment's proxies: they would ask for the metadata of the proxy's host.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""

    def get(self, path: str) -> str | None:
        """The text at `/latest/meta-data/<path>`, None when there is none (404). Raises `Absent`."""
        for is_last in (False, True):
            self._token = self._token or self._new_token()
            try:
                return self._ask("GET", f"meta-data/{path}", {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401 or is_last:
                    raise Absent(f"it answers {error.code} for {path}") from error
                self._token = ""  # expired
        raise AssertionError("not reached")

    def _new_token(self) -> str:
        try:
            return self._ask("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)})
        except urllib.error.HTTPError as error:
            raise Absent(f"it gives no token: {error.code}") from error

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._base_url}/latest/{path}", headers=headers, method=method)  # noqa: S310 - http, see above
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return str(answer.read(ANSWER_BYTES_MAX).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            error.close()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a token that is no header
            raise Absent(f"it does not answer: {error}") from error


async def watch(
    interruption: Interruption, warn: Callable[[str], None], *, base_url: str = BASE_URL, poll_s: float = POLL_S
) -> None:
    """Until the notice comes, ask every `poll_s` seconds; then request the interruption and return.

    Where no metadata service answers the first time, says so once and returns. One that stops answering later is asked on: told
    once too. Cancel it when training is done.
    """
    metadata = Metadata(base_url)
    has_answered = has_warned = False
    while True:
        try:
            text = await asyncio.to_thread(metadata.get, ACTION)
            has_answered = True
        except Absent as absent:
            if not has_answered:
                warn(f"no EC2 metadata service at {base_url}, so no spot notice is watched for: {absent}")
                return
            if not has_warned:
                warn(f"the EC2 metadata service at {base_url} has stopped answering; it is asked on: {absent}")
            has_warned, text = True, None
        if text is not None:
            _announce(interruption, text)
            return
        await asyncio.sleep(poll_s)


async def describe(*, base_url: str = BASE_URL) -> Instance | None:
    """The instance this runs on, or None where there is no metadata service."""
    metadata = Metadata(base_url)
    try:
        kind, zone, market = [
            await asyncio.to_thread(metadata.get, path)
            for path in ("instance-type", "placement/availability-zone", "instance-life-cycle")
        ]
    except Absent:
        return None
    return Instance(kind or "unknown", zone or "unknown", market or "unknown")


def _announce(interruption: Interruption, text: str) -> None:
    """A notice that cannot be read is a notice all the same."""
    try:
        notice = msgspec.json.decode(text, type=Notice)
    except msgspec.DecodeError:
        interruption.request("spot notice")
        return
    when = notice.time.astimezone(UTC)
    deadline_ns = int(when.timestamp()) * 1_000_000_000
    interruption.request(f"spot notice: {notice.action} at {when:%H:%M:%S} UTC", deadline_ns=deadline_ns)

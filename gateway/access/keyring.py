"""From the key in a request to its caller: a dict of every key there is, looked up by the id inside the presented key.

In memory only; `gateway.access.stored` fills it. There is no cache of answers to fill up or to grow stale: a lookup is one
SHA-256 (0.3 us) and one dict access, whether the key is good or garbage. The digests are compared in constant time; that an id
exists is no secret.
"""

from collections.abc import Callable
from hmac import compare_digest
from typing import NoReturn

from gateway.access import tokens
from gateway.access.caller import Caller
from gateway.access.spend import DaySpend
from gateway.contract.access import KEY_ID_LENGTH, KeyRecord
from gateway.errors import Unauthenticated
from gateway.wording import moment

AUTHORIZATION, STEELYARD_KEY = "Authorization", "Steelyard-Key"

_ID = slice(len(tokens.PREFIX), len(tokens.PREFIX) + KEY_ID_LENGTH)
_HOW = f"send '{AUTHORIZATION}: Bearer <key>' or '{STEELYARD_KEY}: <key>'"


class KeyRing:
    """All keys of a store. `put` and `drop` may come at any time between lookups."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._callers: dict[bytes, Caller] = {}
        self._revoked: dict[bytes, KeyRecord] = {}

    def put(self, record: KeyRecord) -> None:
        """From now on this is the key. A caller that was there keeps its count of requests in flight and what it spent."""
        place = record.id.encode()
        if record.revoked_ns is not None:
            self._callers.pop(place, None)
            self._revoked[place] = record
            return
        self._revoked.pop(place, None)
        if caller := self._callers.get(place):
            caller.update(record)
        else:
            self._callers[place] = Caller(self._now_ns, record)

    def drop(self, key_id: str) -> None:
        """From now on there is no such key."""
        self._callers.pop(key_id.encode(), None)
        self._revoked.pop(key_id.encode(), None)

    def caller(self, authorization: bytes | None, key_header: bytes | None) -> Caller:
        """Whose key is in these headers' values; `Steelyard-Key` counts where both are there, for a proxy may own the other.

        Raises `Unauthenticated` saying what to do; it never repeats what was sent.
        """
        if key_header is not None:
            token = key_header.strip()
        elif authorization is not None and authorization[:7].lower() == b"bearer ":
            token = authorization[7:].strip()
        else:
            _refuse_without_key(authorization)
        caller = self._callers.get(token[_ID])
        if caller is None or not compare_digest(caller.digest, tokens.digest(token)):
            self._refuse(token, AUTHORIZATION if key_header is None else STEELYARD_KEY)
        if caller.expires_ns is not None and self._now_ns() >= caller.expires_ns:
            raise Unauthenticated(f"key '{caller.key_id}' expired at {moment(caller.expires_ns)}; ask for another")
        return caller

    def usable(self) -> int:
        """How many keys are neither revoked nor expired."""
        now_ns = self._now_ns()
        return sum(caller.expires_ns is None or caller.expires_ns > now_ns for caller in self._callers.values())

    def purses(self) -> dict[str, DaySpend]:
        """The purses of all keys with a budget, by key id."""
        return {caller.key_id: caller.purse for caller in self._callers.values() if caller.purse is not None}

    def _refuse(self, token: bytes, header: str) -> NoReturn:
        """Only who holds a revoked key is told that it was one."""
        if tokens.key_id(token.decode("latin-1")) is None:
            raise Unauthenticated(
                f"what the {header} header holds is no whole key (they begin with '{tokens.PREFIX}' and have "
                f"{tokens.LENGTH} characters): mistyped, or cut off?"
            )
        revoked = self._revoked.get(token[_ID])
        if revoked is not None and compare_digest(bytes.fromhex(revoked.secret_sha256), tokens.digest(token)):
            assert revoked.revoked_ns is not None
            raise Unauthenticated(f"key '{revoked.id}' was revoked at {moment(revoked.revoked_ns)}; ask for another")
        raise Unauthenticated(
            f"the key in the {header} header is not known here; one that was just added is within seconds "
            "(access.poll_s)"
        )


def _refuse_without_key(authorization: bytes | None) -> NoReturn:
    if authorization is not None:
        raise Unauthenticated(f"the {AUTHORIZATION} header holds no Bearer key; {_HOW}")
    raise Unauthenticated(f"a key is needed: {_HOW}")

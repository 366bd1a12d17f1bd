"""The front gate: how many requests and body bytes may be inside at once. Full means a quick refusal, not a longer wait."""

import msgspec

from gateway.config import Amount
from gateway.errors import Overloaded


class AdmissionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bytes_max` bounds what bodies in flight may hold of memory; one body's own cap is `server.body_bytes_max`."""

    requests_max: Amount = 1024
    bytes_max: Amount = 256 * 1024 * 1024


class Admission:
    """Counts what is inside. Used on the event loop only."""

    def __init__(self, options: AdmissionOptions) -> None:
        self._options = options
        self.requests = 0
        self.body_bytes = 0

    def check(self) -> None:
        """Raises `Overloaded` when one more would be too many: asked before anything is done for a request."""
        if self.requests >= self._options.requests_max:
            raise Overloaded(f"{self.requests} requests are in flight (requests_max is {self._options.requests_max})")

    def enter(self, body_bytes: int) -> None:
        """Count in a request that has to wait, with its body; `leave` must follow."""
        self.requests += 1
        self.body_bytes += body_bytes

    def leave(self, body_bytes: int) -> None:
        """Count it out."""
        self.requests -= 1
        self.body_bytes -= body_bytes

    def hold(self, body_bytes: int) -> None:
        """Count bytes of a body as they arrive; `release` must follow. Raises `Overloaded`, and then holds nothing more."""
        if self.body_bytes + body_bytes > self._options.bytes_max:
            raise self._full()
        self.body_bytes += body_bytes

    def check_room(self, body_bytes: int) -> None:
        """Raises `Overloaded` when so many more would be too many."""
        if self.body_bytes + body_bytes > self._options.bytes_max:
            raise self._full()

    def release(self, body_bytes: int) -> None:
        """The body is gone."""
        self.body_bytes -= body_bytes

    def _full(self) -> Overloaded:
        return Overloaded(f"{self.body_bytes} body bytes are in flight (bytes_max is {self._options.bytes_max})")

"""What the HTTP room needs of the process behind it; `gateway.bootstrap` opens one."""

import msgspec

from gateway.dataplane import DataPlane
from gateway.errors import InvalidInput
from gateway.repository.residents import Repository
from gateway.runtime.model import LoadedModel


class Service(msgspec.Struct):
    """`instance` begins every request id and is new with every process. `ready` turns false once the process drains.

    `ready_wait_s`: how long asking for a model's readiness waits for its load.
    """

    dataplane: DataPlane
    repository: Repository[LoadedModel]
    version: str
    instance: str
    ready: bool = True
    ready_wait_s: float = 2.0


def version_number(text: str) -> int:
    """A version as it stands in a path. Raises `InvalidInput`."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InvalidInput(f"version '{text[:32]}' is not a number")
    return int(text)

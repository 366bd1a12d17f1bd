"""What the bucket holds about callers: key records, which never hold a key, and what each container saw keys spend in a day.

A key record is created once and changes once, when it is revoked. That makes it longer, always, and so a listing of keys and
sizes tells a gateway which records to read again. Money is pico-dollars (1e-12 USD), time is nanoseconds since the Unix epoch.
"""

from typing import Annotated, Any, Literal  # Any: a stored object's tree before it is a struct

import msgspec
from msgspec import Meta

from gateway.contract import codec
from gateway.contract.words import Count, Name, Positive, Sha256

Right = Literal["predict", "costs", "admin"]
RIGHTS: tuple[Right, ...] = ("predict", "costs", "admin")

KEY_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
"""No l, o, 0 or 1: ids are read aloud and typed. Lower case: two ids never meet on a case-folding file system."""

KEY_ID_LENGTH = 10
KeyId = Annotated[str, Meta(pattern=f"^[{KEY_ID_LETTERS}]{{{KEY_ID_LENGTH}}}\\Z")]

ModelPattern = Annotated[str, Meta(pattern=r"^[a-z0-9*][a-z0-9._*-]{0,62}$")]
"""A model's name, in which `*` stands for any characters or none."""

NOTE_LENGTH_MAX = 500
Note = Annotated[str, Meta(max_length=NOTE_LENGTH_MAX)]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class KeyRecord(msgspec.Struct, frozen=True):
    """`keys/<id>.json`. `secret_sha256` is the digest of the whole key as its holder sends it; the key itself is stored nowhere.

    None means no limit. `rps` and `concurrency` hold in each gateway, `budget_picousd_per_day` (UTC) over all of them. `burst` is
    how many requests may come at once after a pause; None means one second's worth.
    """

    id: KeyId
    secret_sha256: Sha256
    tenant: Name
    rights: tuple[Right, ...]
    models: tuple[ModelPattern, ...]
    created_ns: Count
    created_by: str
    budget_picousd_per_day: Positive | None = None
    rps: Positive | None = None
    burst: Positive | None = None
    concurrency: Positive | None = None
    expires_ns: Count | None = None
    note: Note = ""
    revoked_ns: Count | None = None
    revoked_by: str = ""
    schema_version: int = 1

    def __post_init__(self) -> None:
        if not self.rights or len(set(self.rights)) != len(self.rights):
            raise ValueError(f"rights must be one or more of {', '.join(RIGHTS)}, each once")
        if not self.models:
            raise ValueError("models is empty; '*' allows all of them")
        if self.burst is not None and self.rps is None:
            raise ValueError("burst needs rps")


class SpendRecord(msgspec.Struct, frozen=True):
    """`spend/v1/dt=<date>/<container>-<boot_ns>.json`: the receipts of one container's life on one day, by key id.

    Only keys with a budget. `closed` says that this life is over and the object final.
    """

    container: str
    boot_ns: Count
    date: Date
    spent_picousd: dict[KeyId, Count]
    closed: bool = False
    schema_version: int = 1


def revoked(stored: bytes, *, at_ns: int, by: str) -> bytes:
    """A key record's bytes with its revocation written in. Fields that a newer release added stay as they are.

    Raises `ManifestInvalid` when the bytes are not a key record. The caller checks that it is not revoked already.
    """
    codec.decode(stored, KeyRecord)
    tree: dict[str, Any] = msgspec.json.decode(stored)
    body = msgspec.json.encode(tree | {"revoked_ns": at_ns, "revoked_by": by})
    codec.decode(body, KeyRecord)
    return body

"""One object on its way to the store, and what it looks like on local disk while the store is away.

A spilled file is one line that says whose it is, one line of JSON that says what it holds, and the object's bytes as they will be
stored. Pure; `gateway.accounting.spill` puts such files on disk and finds them again.
"""

from typing import Literal

import msgspec

from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.words import Count, Sha256
from gateway.errors import ManifestInvalid

Kind = Literal["price book", "open record", "segment", "close record"]

MAGIC = b"steelyard spilled ledger object\n"


class Parcel(msgspec.Struct, frozen=True):
    """One object to create, and how much money it accounts for."""

    what: Kind
    key: str
    body: bytes
    cost_picousd: int = 0


class Label(msgspec.Struct, frozen=True):
    """All of a parcel but its bytes, whose length and digest tell a whole file from a torn one."""

    what: Kind
    key: str
    cost_picousd: Count
    body_bytes: Count
    sha256: Sha256
    schema_version: int = 1


def packed(parcel: Parcel) -> bytes:
    """The file's bytes."""
    label = Label(parcel.what, parcel.key, parcel.cost_picousd, len(parcel.body), codec.sha256(parcel.body))
    return b"".join([MAGIC, codec.encode(label), b"\n", parcel.body])


def unpacked(data: bytes, *, what: str) -> Parcel:
    """Read a file; `what` names it in messages.

    Raises `ManifestInvalid` for one that is torn, not ours, or of an object that no ledger writer creates, `WrittenByNewer` for one
    of a newer version.
    """
    if not data.startswith(MAGIC):
        raise ManifestInvalid(f"{what} is no spilled ledger object")
    head, _, body = data[len(MAGIC) :].partition(b"\n")
    label = codec.decode(head, Label, what=what)
    if len(body) != label.body_bytes or codec.sha256(body) != label.sha256:
        raise ManifestInvalid(f"{what} is torn: its bytes are not those that were to be written")
    named = ledgerkeys.parse(label.key)
    is_ours = label.key == layout.price_book(label.sha256) or (named is not None and named.kind in _KINDS)
    if not is_ours:
        raise ManifestInvalid(f"{what} holds {label.key}, which no ledger writer creates")
    return Parcel(label.what, label.key, body, label.cost_picousd)


_KINDS = {"segment", "open", "close"}

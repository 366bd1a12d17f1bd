"""What an outage of the store puts on local disk, within a cap, and what an earlier life left there.

`Shelf` is one life's place on disk, `Shelves` all of them; `gateway.accounting.spillfolder` has the real ones. Blocking calls,
which the outbox makes in threads; the counters may be read at any time.
"""

import logging
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.accounting.parcel import Kind, Parcel, packed, unpacked
from gateway.errors import ManifestInvalid

logger = logging.getLogger(__name__)

SUMS_BYTES_MAX = 1 << 16
"""Up to this size an object is kept beyond the cap: an hour's sums, an opening and a close record. Detail has a cap, money not."""

_NAME = re.compile(r"(?P<number>\d{12})\.spilled")


class Shelf(Protocol):
    """Files of one life by name, each whole. All but `close` raise `OSError`."""

    name: str

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...
    def set_aside(self, name: str) -> None: ...
    def close(self) -> None: ...


class Shelves(Protocol):
    """Whose lives' shelves there are on this disk. `left` gives those of dead lives, each to one caller."""

    def own(self, container: str, boot_ns: int) -> Shelf: ...
    def left(self) -> Sequence[Shelf]: ...


class Stored(msgspec.Struct, frozen=True):
    """A whole file that an earlier life left; `number` is its place in that life's order. The bytes stay on disk."""

    number: int
    what: Kind
    key: str
    cost_picousd: int
    body_bytes: int


class Spill:
    """One life's parcels on disk by number. `failures` counts writes that did not succeed, `set_aside` files that are no use."""

    def __init__(self, shelf: Shelf, *, bytes_max: int) -> None:
        self.failures = 0
        self.set_aside = 0
        self.is_failing = False
        self._shelf = shelf
        self._bytes_max = bytes_max
        self.used_bytes = 0
        self._sizes: dict[int, int] = {}

    @property
    def name(self) -> str:
        """Where, for messages."""
        return self._shelf.name

    @property
    def capacity_bytes(self) -> int:
        """How much detail it has room for in all; no more than it has while its disk takes nothing."""
        return self.used_bytes if self.is_failing else self._bytes_max

    def holds(self, number: int) -> bool:
        """Whether this parcel is on disk."""
        return number in self._sizes

    def has_room(self, body_bytes: int) -> bool:
        """Whether an object of this size may be written."""
        return body_bytes <= SUMS_BYTES_MAX or self.used_bytes + body_bytes <= self._bytes_max

    def write(self, number: int, parcel: Parcel) -> bool:
        """False when the disk did not take it, which is said once until it does again. The next attempt makes another file."""
        try:
            self._shelf.write(_name(number), packed(parcel))
        except OSError as error:
            self.failures += 1
            if not self.is_failing:
                logger.warning(
                    "ledger: %s takes no files, so what the store does not take is in memory only until it does: %s",
                    self.name,
                    error,
                )
            self.is_failing = True
            return False
        if self.is_failing:
            logger.info("ledger: %s takes files again", self.name)
        self.is_failing = False
        self._note(number, len(parcel.body))
        return True

    def read(self, number: int) -> Parcel | None:
        """A parcel written earlier; None, and named in the log, when it cannot be had any more."""
        name = _name(number)
        try:
            return unpacked(self._shelf.read(name), what=f"{self.name}/{name}")
        except (OSError, ManifestInvalid) as error:
            logger.error("ledger: a part of the bill is lost and will be reported as unattributed: %s", error)  # noqa: TRY400 - no bug
            return None

    def remove(self, number: int) -> None:
        """The store has it. Should the file stay, the next life finds the same bytes in the store: harmless."""
        self._note(number, 0)
        try:
            self._shelf.remove(_name(number))
        except OSError as error:
            logger.warning("ledger: %s/%s is in the store and cannot be removed: %s", self.name, _name(number), error)

    def find(self) -> list[Stored]:
        """What an earlier life left here, in its order. What is no parcel is named in the log and set aside."""
        found = []
        for name in self._shelf.names():
            try:
                found.append(self._found(name))
            except (OSError, ManifestInvalid) as error:
                self._put_aside(name, error)
        return found

    def give_up(self, why: str) -> None:
        """Set everything aside: the store will never take it."""
        for number in sorted(self._sizes):
            self._note(number, 0)
            self._put_aside(_name(number), why)

    def close(self) -> None:
        self._shelf.close()

    def _found(self, name: str) -> Stored:
        what = f"{self.name}/{name}"
        matched = _NAME.fullmatch(name)
        if matched is None:
            raise ManifestInvalid(f"{what} is no file of ours")
        parcel = unpacked(self._shelf.read(name), what=what)
        number = int(matched["number"])
        self._note(number, len(parcel.body))
        return Stored(number, parcel.what, parcel.key, parcel.cost_picousd, len(parcel.body))

    def _note(self, number: int, size: int) -> None:
        """A whole number beside the sizes: others read it while a thread writes."""
        self.used_bytes += size - self._sizes.pop(number, 0)
        if size:
            self._sizes[number] = size

    def _put_aside(self, name: str, why: object) -> None:
        self.set_aside += 1
        logger.error("ledger: setting %s/%s aside: %s", self.name, name, why)
        try:
            self._shelf.set_aside(name)
        except OSError as error:
            logger.warning("ledger: %s/%s stays where it is: %s", self.name, name, error)


def _name(number: int) -> str:
    return f"{number:012d}.spilled"

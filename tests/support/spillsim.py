"""A machine's local disk for simulated lives: it outlasts their kills, and fails as a seed says.

`full` refuses some of the writes, `absent` all (a read-only or missing disk), `torn` keeps only half of the last file of a life
that is killed, and puts beside it files that are none of ours and one of a newer version.
"""

import errno
from random import Random
from typing import Literal

from gateway.accounting.parcel import MAGIC, unpacked

DiskKind = Literal["none", "present", "absent", "full", "torn"]
KINDS: tuple[DiskKind, ...] = ("none", "present", "absent", "full", "torn")
FOREIGN = {
    "notes.txt": b"none of ours",
    "999999999990.spilled": b"none of ours under a name of ours",
    "999999999991.spilled": MAGIC + b'{"what":"scroll","schema_version":2}\nof a later age',
}


class SimDisk:
    """`files` by life and name; `promised` is every key that a write said is safe, `torn` those of them that are not."""

    def __init__(self, kind: DiskKind, random: Random) -> None:
        self.kind = kind
        self.files: dict[str, dict[str, bytes]] = {}
        self.held: set[str] = set()
        self.torn: list[str] = []
        self.promised: set[str] = set()
        self.writes = 0
        self.refused = 0
        self._random = random
        self._last: tuple[str, str] | None = None

    def write(self, life: str, name: str, data: bytes) -> None:
        if self.kind == "absent" or (self.kind == "full" and self._random.random() < 0.5):
            self.refused += 1
            raise OSError(errno.ENOSPC, "no space left on device")
        self.writes += 1
        self.files.setdefault(life, {})[name] = data
        self.promised.add(unpacked(data, what=name).key)
        self._last = life, name

    def crash(self) -> None:
        """The process that held folders is gone."""
        self.held.clear()
        life, name = self._last or ("", "")
        if self.kind == "torn" and name in self.files.get(life, {}):
            body = self.files[life][name]
            self.files[life] |= {name: body[: len(body) // 2]} | FOREIGN
            self.torn.append(unpacked(body, what=name).key)
        self._last = None


class SimShelf:
    """One life's folder, as a process sees it. Severed, the process reaches nothing any more."""

    def __init__(self, shelves: "SimShelves", life: str) -> None:
        self.name = life
        self._shelves = shelves

    def names(self) -> list[str]:
        return sorted(self._files())

    def read(self, name: str) -> bytes:
        return self._files()[name]

    def write(self, name: str, data: bytes) -> None:
        self._files()
        self._shelves.disk.held.add(self.name)
        self._shelves.disk.write(self.name, name, data)

    def remove(self, name: str) -> None:
        self._files().pop(name, None)

    def set_aside(self, name: str) -> None:
        del self._files()[name]

    def close(self) -> None:
        if not self._shelves.is_severed:
            self._shelves.disk.held.discard(self.name)

    def _files(self) -> dict[str, bytes]:
        if self._shelves.is_severed:
            raise OSError(errno.EIO, "this process is dead")
        return self._shelves.disk.files.get(self.name, {})


class SimShelves:
    """One process's way to the disk."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.is_severed = False

    def own(self, container: str, boot_ns: int) -> SimShelf:
        return SimShelf(self, f"{container}.{boot_ns}")

    def left(self) -> list[SimShelf]:
        lives = [life for life, files in sorted(self.disk.files.items()) if files and life not in self.disk.held]
        self.disk.held |= set(lives)
        return [SimShelf(self, life) for life in lives]

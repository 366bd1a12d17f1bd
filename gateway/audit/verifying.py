"""Reads a ledger from its store and says whether it is whole: `steelyard ledger verify`.

Every object is fetched from the store itself, never from a copy, a few at a time; of each only its header is kept. A ledger of
10,000 segments takes some megabytes here. Segments that have expired are read from the hours that they were compacted into.
"""

import asyncio
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from gateway.audit import archive, corrections, lives, segments
from gateway.audit.archive import Archive
from gateway.audit.findings import Finding, Verdict
from gateway.audit.hours import Reader
from gateway.audit.lives import Life
from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.ledger import Close, Ended, Open
from gateway.contract.ledgerkeys import LedgerKey
from gateway.contract.prices import PriceBook
from gateway.contract.words import END_NS, HOUR_NS
from gateway.errors import ManifestInvalid, ObjectNotFound, SettingsError, WrittenByNewer
from gateway.objectstore.protocol import ObjectStore

FETCHES = 8
"""Hides S3's first byte (tens of ms); at most that many segments (a megabyte or two each) are in memory."""

T = TypeVar("T", Open, Close, Ended)


class Scope(msgspec.Struct, frozen=True):
    """Which segments are read: those of hours that touch [since_ns, until_ns), of one container or of all."""

    since_ns: int = 0
    until_ns: int = END_NS
    container: str = ""

    @property
    def is_of_all_times(self) -> bool:
        """Only then can be said what nobody claims."""
        return self.since_ns == 0 and self.until_ns == END_NS

    def holds(self, named: LedgerKey) -> bool:
        """Whether this object is looked at."""
        if self.container and named.container != self.container:
            return False
        return named.kind != "segment" or (named.hour_ns < self.until_ns and named.hour_ns + HOUR_NS > self.since_ns)


async def verify(store: ObjectStore, scope: Scope, *, now_ns: int, reader: Reader) -> Verdict:
    """Raises `StoreUnavailable`; whatever is wrong with the ledger is a finding. `reader` reads compacted files."""
    return await _Audit(store, scope, now_ns, reader).verdict()


class _Audit:
    """One run."""

    def __init__(self, store: ObjectStore, scope: Scope, now_ns: int, reader: Reader) -> None:
        self._store = store
        self._scope = scope
        self._now_ns = now_ns
        self._reader = reader
        self._archive = Archive({}, frozenset(), ())
        self._lives: dict[tuple[str, int], Life] = {}
        self._found: list[Finding] = []
        self._books: dict[str, PriceBook] = {}
        self._seen_books: set[str] = set()
        self._corrections: dict[str, bytes] = {}

    async def verdict(self) -> Verdict:
        records, kept = await self._listed()
        await archive.each(records, self._record, at_once=FETCHES)
        await archive.each(sorted({*self._wanted_books()}), self._book, at_once=FETCHES)
        await self._read_archive()
        await archive.each(kept, self._segment, at_once=FETCHES)
        expired = self._expired({*kept})
        touched = [life for life in self._lives.values() if self._scope.is_of_all_times or life.read]
        lives.chain_lives([*self._lives.values()])
        unattributed = 0
        for life in sorted(touched, key=lambda life: (life.container, life.boot_ns)):
            found, cost = lives.check(life, self._books, self._now_ns, is_whole=self._scope.is_of_all_times)
            self._found += found
            unattributed += cost
        wrong, corrected = corrections.check(self._corrections)
        self._found += wrong
        read = [one.header for life in touched for one in life.read]
        return Verdict(
            segments=len(kept) + expired,
            lives=len(touched),
            requests=sum(header.requests for header in read),
            charged_picousd=sum(header.cost_picousd for header in read),
            unattributed_picousd=unattributed,
            findings=tuple(
                sorted(self._found, key=lambda one: (not one.is_fault, one.container, one.from_ns, one.key))
            ),
            corrected_picousd=corrected,
            expired=expired,
        )

    async def _listed(self) -> tuple[list[str], list[str]]:
        """Keys of records and of segments to read. All segments' numbers are noted: what is missing shows in the listing."""
        records: list[str] = []
        kept: list[str] = []
        async for info in self._store.list(layout.LEDGER):
            named = ledgerkeys.parse(info.key)
            if named is None:
                text = f"{info.key} is none of this Steelyard's keys: from a newer one, or not of the ledger"
                self._found.append(Finding("foreign_object", text, is_fault=False, key=info.key))
            elif named.kind == "training":
                continue
            elif named.kind == "correction":
                if not self._scope.container:
                    self._corrections[info.key] = (await self._store.get(info.key)).body
            elif named.kind == "segment" and self._scope.holds(msgspec.structs.replace(named, kind="open")):
                self._life(named).seqs.setdefault(named.seq, []).append(info.key)
                if self._scope.holds(named):
                    kept.append(info.key)
            elif named.kind != "segment" and self._scope.holds(named):
                records.append(info.key)
        return records, kept

    def _life(self, named: LedgerKey) -> Life:
        return self._lives.setdefault((named.container, named.boot_ns), Life(named.container, named.boot_ns))

    async def _record(self, key: str) -> None:
        named = ledgerkeys.parse(key)
        assert named is not None
        life = self._life(named)
        data = (await self._store.get(key)).body
        match named.kind:
            case "open":
                life.has_open = True
                life.opened = self._decoded(key, data, Open, life)
            case "close":
                life.closed = self._decoded(key, data, Close, life)
            case "ended":
                life.ended = self._decoded(key, data, Ended, life)

    def _decoded(self, key: str, data: bytes, kind: type[T], life: Life) -> T | None:
        """None, and a finding, when it cannot be read or speaks of another life."""
        try:
            record = codec.decode(data, kind, what=key)
        except WrittenByNewer as error:
            self._found.append(Finding("newer_version", str(error), key=key, container=life.container))
            return None
        except ManifestInvalid as error:
            self._found.append(Finding("damaged", str(error), key=key, container=life.container))
            return None
        if (record.container, record.boot_ns) != (life.container, life.boot_ns):
            self._found.append(Finding("misplaced", f"{key} speaks of another life", key=key, container=life.container))
            return None
        if codec.encode(record) != data:
            text = f"{key} was changed: these are not the bytes that Steelyard writes"
            self._found.append(Finding("damaged", text, key=key, container=life.container))
        return record

    def _wanted_books(self) -> Iterator[str]:
        return (life.opened.price_book_sha256 for life in self._lives.values() if life.opened is not None)

    async def _book(self, sha256: str) -> None:
        """Every price a bill was made with must be there, unchanged."""
        if sha256 in self._seen_books:
            return
        self._seen_books.add(sha256)
        key = layout.price_book(sha256)
        try:
            data = (await self._store.get(key)).body
        except ObjectNotFound:
            self._found.append(
                Finding("edited_price", f"{key} is missing: bills cannot be checked against it", key=key)
            )
            return
        if codec.sha256(data) != sha256:
            text = f"{key} was edited: its digest is now {codec.sha256(data)}; put the original back"
            self._found.append(Finding("edited_price", text, key=key))
            return
        try:
            self._books[sha256] = PriceBook(data, name=key)
        except SettingsError as error:
            self._found.append(Finding("newer_version", f"{error}: upgrade Steelyard to check against it", key=key))

    async def _segment(self, key: str) -> None:
        named = ledgerkeys.parse(key)
        assert named is not None
        life = self._life(named)
        compacted = self._archive.segments.get(key)
        try:
            data = (await self._store.get(key)).body
        except ObjectNotFound:
            if compacted is not None:
                life.read.append(compacted)
                return
            self._found.append(Finding("gap", f"{key} was removed during the audit", key=key, container=life.container))
            return
        checked, found = await asyncio.to_thread(segments.check, key, data, life.opened, self._books)
        self._found += found
        if checked is None:
            if compacted is not None:
                life.read.append(compacted)
            return
        if compacted is not None and compacted.sha256 != checked.sha256:
            text = f"{key} is not the segment that was compacted: its digest was {compacted.sha256}"
            self._found.append(Finding("broken_chain", text, key=key, container=life.container))
        life.read.append(checked)
        if checked.header.price_book_sha256 not in self._seen_books:
            await self._book(checked.header.price_book_sha256)

    async def _read_archive(self) -> None:
        opens = {name: life.opened for name, life in self._lives.items()}
        self._archive = await archive.read(
            self._store,
            lambda begin_ns: begin_ns < self._scope.until_ns and begin_ns + HOUR_NS > self._scope.since_ns,
            opens,
            self._books,
            self._reader,
        )
        self._found += self._archive.findings

    def _expired(self, kept: set[str]) -> int:
        """Give lives their segments that only the archive has; how many were read."""
        count = 0
        for key in self._archive.listed:
            named = ledgerkeys.parse(key)
            if named is None or named.kind != "segment" or self._scope.container not in {"", named.container}:
                continue
            life = self._life(named)
            if key not in life.seqs.get(named.seq, []):
                life.seqs.setdefault(named.seq, []).append(key)
            if key not in kept and key in self._archive.segments:
                life.read.append(self._archive.segments[key])
                count += 1
        return count

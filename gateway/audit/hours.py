"""One generation of a compacted hour against its manifest: the bytes of its files, and what they say of its segments.

What Parquet says is read by whoever has DuckDB (`gateway.reports.hourproof`) and is given to `check` as `Contents`. Pure, but for
`fetched`.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from gateway.audit import segments
from gateway.audit.findings import Finding, Kind
from gateway.audit.segments import Checked
from gateway.contract import layout
from gateway.contract.compacted import TABLES, File, Manifest, Table
from gateway.contract.ledger import Charge, Open, Segment
from gateway.contract.prices import PriceBook
from gateway.errors import ObjectNotFound
from gateway.objectstore.protocol import ObjectStore


class Row(msgspec.Struct, frozen=True):
    """A segment as the hour's files have it. `sha256` is of its stored bytes, before they were compacted."""

    header: Segment
    sha256: str
    charges: tuple[Charge, ...]


class Contents(msgspec.Struct, frozen=True):
    """What the files of a generation hold; `problems` are sums in them that differ, in words."""

    segments: tuple[Row, ...]
    rows: Mapping[Table, int]
    problems: tuple[str, ...]


Reader = Callable[[Mapping[Table, Path]], Contents]
"""Reads the files of one generation; blocking. Raises `ManifestInvalid` for a file that is no Parquet of the table's columns."""


async def fetched(store: ObjectStore, manifest: Manifest, folder: Path) -> tuple[dict[Table, Path], list[Finding]]:
    """Copies of the files that are what the manifest says, and findings about the others."""
    paths: dict[Table, Path] = {}
    found: list[Finding] = []
    for file in manifest.files:
        path = folder / f"{file.table}.parquet"
        try:
            sha256, size = await _copied(store.stream(file.key), path)
        except ObjectNotFound:
            found.append(Finding("missing_file", f"{file.key} is missing, and its manifest lists it", key=file.key))
            continue
        if (sha256, size) == (file.sha256, file.size_bytes):
            paths[file.table] = path
        else:
            text = f"{file.key} was changed, or its manifest was: its {size:,} bytes have the digest {sha256}"
            found.append(Finding("damaged", text, key=file.key))
    return paths, found


async def _copied(chunks: AsyncIterator[bytes], path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        async for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    return digest.hexdigest(), size


def expected_files(manifest: Manifest) -> dict[Table, str]:
    """The key of each table's file; the first version of manifests had no sums."""
    return {
        table: layout.compacted(table, manifest.dt, manifest.hr, manifest.generation)
        for table in TABLES
        if table != "sums" or manifest.schema_version > 1
    }


def check(
    key: str,
    manifest: Manifest,
    contents: Contents,
    opens: Mapping[tuple[str, int], Open | None],
    books: dict[str, PriceBook],
) -> tuple[dict[str, Checked], list[Finding]]:
    """The hour's segments by the keys they had, and what does not fit together."""
    found = [Finding("unbalanced", f"{key}: {problem}", key=key) for problem in contents.problems]
    found += _sums(key, manifest, contents)
    read: dict[str, Checked] = {}
    for row in contents.segments:
        header = row.header
        name = layout.segment(
            from_ns=header.from_ns, container=header.container, boot_ns=header.boot_ns, seq=header.seq
        )
        read[name] = Checked(name, row.sha256, header, any(charge.beyond for charge in row.charges))
        opened = opens.get((header.container, header.boot_ns))
        found += segments.charged(name, header, row.charges, opened, books)
    listed = {given.key: given.sha256 for given in manifest.inputs}
    for name in sorted(listed.keys() | read.keys()):
        if name not in read:
            found.append(_about(key, "gap", f"{name} is listed in {key}, and its files have no such segment"))
        elif name not in listed:
            found.append(_about(key, "duplicate", f"the files of {key} hold {name}, which it does not list"))
        elif listed[name] != read[name].sha256:
            found.append(_about(key, "broken_chain", f"{key} lists {name} with another digest than its files have"))
    return read, found


def _about(key: str, kind: Kind, text: str) -> Finding:
    return Finding(kind, text, key=key)


def _sums(key: str, manifest: Manifest, contents: Contents) -> Iterator[Finding]:
    charged = sum(row.header.cost_picousd for row in contents.segments)
    requests = sum(row.header.requests for row in contents.segments)
    if (manifest.cost_picousd, manifest.requests) != (charged, requests):
        text = (
            f"{key} says {manifest.cost_picousd:,} p$ and {manifest.requests:,} requests; "
            f"its segments add up to {charged:,} p$ and {requests:,}"
        )
        yield Finding("unbalanced", text, key=key)
    for file in manifest.files:
        if contents.rows[file.table] != file.rows:
            text = f"{file.key} has {contents.rows[file.table]:,} rows, its manifest says {file.rows:,}"
            yield Finding("unbalanced", text, key=file.key)


def has_all_files(manifest: Manifest) -> bool:
    """Each table's file once, under the key that it must have."""
    return [(file.table, file.key) for file in manifest.files] == [*expected_files(manifest).items()]


def listed_files(manifests: Mapping[str, Manifest]) -> dict[str, File]:
    """All files of these, by key."""
    return {file.key: file for manifest in manifests.values() for file in manifest.files}

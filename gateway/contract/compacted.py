"""The compacted ledger: per hour and generation a plan, five Parquet files and, written last, a manifest.

A plan fixes the inputs of one generation before anything is written, so that whoever finishes it writes the same files; segments
that come after it are the next generation's. A segment is in one generation only: all files of a table together hold each row
once, and an engine may read them without asking the manifests. Only a file that a manifest lists is known to be complete.

`sums` says again, summed over the hour, what `segments`, `charges` and `postings` say one by one: reports read it in their place.
"""

from typing import Literal

import msgspec

from gateway.contract.words import Count, Sha256

Table = Literal["segments", "charges", "postings", "requests", "sums"]
TABLES: tuple[Table, ...] = ("segments", "charges", "postings", "requests", "sums")
"""In the order in which an hour's files are written: an engine that sees the hour's `sums` sees all of the hour."""


class Input(msgspec.Struct, frozen=True):
    """One segment by its stored bytes."""

    key: str
    sha256: Sha256


class Plan(msgspec.Struct, frozen=True):
    """Which segments a generation of an hour is made of, in key order. `dt` is 2026-11-05, `hr` 00 to 23 (UTC)."""

    dt: str
    hr: str
    generation: Count
    inputs: tuple[Input, ...]
    schema_version: int = 1


class File(msgspec.Struct, frozen=True):
    """One Parquet file as stored."""

    table: Table
    key: str
    sha256: Sha256
    size_bytes: Count
    rows: Count


class Manifest(msgspec.Struct, frozen=True):
    """The commit: these inputs are compacted, into these files. `cost_picousd` is what the inputs charge.

    Version 1 had no `sums`, no `beyond` in charges and no `phases` in postings.
    """

    dt: str
    hr: str
    generation: Count
    inputs: tuple[Input, ...]
    files: tuple[File, ...]
    cost_picousd: Count
    requests: Count
    schema_version: int = 2


class Contents(msgspec.Struct, frozen=True):
    """A manifest without its inputs: all that a report needs of an hour whose segments are gone, and a hundredth of the memory."""

    dt: str
    hr: str
    generation: Count
    files: tuple[File, ...]
    schema_version: int = 2

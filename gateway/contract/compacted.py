"""The compacted ledger: per hour and generation a plan, four Parquet files and, written last, a manifest.

A plan fixes the inputs of one generation before anything is written, so that whoever finishes it writes the same files; segments
that come after it are the next generation's. A segment is in one generation only: all files of a table together hold each row
once, and an engine may read them without asking the manifests. Only a file that a manifest lists is known to be complete.
"""

from typing import Literal

import msgspec

from gateway.contract.words import Count, Sha256

Table = Literal["segments", "charges", "postings", "requests"]
TABLES: tuple[Table, ...] = ("segments", "charges", "postings", "requests")


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
    """The commit: these inputs are compacted, into these files. `cost_picousd` is what the inputs charge."""

    dt: str
    hr: str
    generation: Count
    inputs: tuple[Input, ...]
    files: tuple[File, ...]
    cost_picousd: Count
    requests: Count
    schema_version: int = 1

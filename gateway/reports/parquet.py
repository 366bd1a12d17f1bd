"""Rows of plain values as one Parquet file. Types are told, never guessed: money must stay a decimal."""

import glob
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb
import msgspec

_encoder = msgspec.json.Encoder()


def encoded(kinds: Mapping[str, str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """A Parquet file. `kinds`: DuckDB's type of each column, in order. An absent value is NULL; fractions come as text."""
    with tempfile.TemporaryDirectory(prefix="steelyard-parquet-") as scratch, duckdb.connect() as connection:
        lines, made = Path(scratch) / "rows.jsonl", Path(scratch) / "rows.parquet"
        with lines.open("wb") as file:
            for row in rows:
                file.write(_encoder.encode({name: _text(row.get(name)) for name in kinds}) + b"\n")
        connection.execute("SET TimeZone = 'UTC'")
        read = connection.read_json(
            glob.escape(str(lines)), columns=dict.fromkeys(kinds, "VARCHAR"), format="newline_delimited"
        )
        typed = read.project(", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in kinds.items()))
        typed.write_parquet(str(made), compression="zstd")
        return made.read_bytes()


def _text(value: object) -> str | None:
    return None if value is None else str(value)

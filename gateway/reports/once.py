"""One cost report made in a process of its own: `python -m gateway.reports.once`, started by `gateway.reports.live`.

Reads an `Order` as JSON from standard input and writes the report. What is refused goes to standard error as a `Refusal`, and the
exit code is `REFUSED`. It gives way to the gateway in whose container it runs: for the CPU, and when memory is short.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec

from gateway.contract import energy
from gateway.errors import CacheUnusable, GatewayError, InvalidInput, Unavailable
from gateway.objectstore.opening import open_store
from gateway.reports.query import Query

REFUSED = 3
MEMORY_MAX = (
    "256MB"  # DuckDB's: a report over 100 million requests then takes 300 MB in all, which a container of 2 GB spares
)
THREADS = 1  # the other cores stay with predictions
BYTES_MAX = 16 * 2**20  # what the gateway holds of an answer, some times over; more is a job for the command

Form = Literal["html", "json", "csv"]


class Order(msgspec.Struct, frozen=True):
    """`folder` is where copies of the ledger are kept, `energy_book` a file of coefficients; empty: those shipped."""

    store: str
    folder: str
    query: Query
    form: Form
    energy_book: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """The class of a `GatewayError` and what it says."""

    kind: str
    message: str


def main() -> int:
    """The process's exit code."""
    os.nice(10)
    with contextlib.suppress(OSError):  # where /proc is read-only
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        data = asyncio.run(_made(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))
    except GatewayError as error:
        sys.stderr.buffer.write(msgspec.json.encode(Refusal(type(error).__name__, str(error))))
        return REFUSED
    sys.stdout.buffer.write(data)
    return 0


async def _made(order: Order) -> bytes:
    folder = _own(Path(order.folder))
    try:
        from gateway.reports import breakdown, export, plotdata, tables  # noqa: PLC0415 # duckdb may be missing
        from gateway.reports.page import html  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unavailable(f"cost reports need '{error.name}' here: pip install 'steelyard[reports]'") from error
    tables.limit(tables.Limits(MEMORY_MAX, THREADS))
    async with contextlib.aclosing(open_store(order.store)) as store:
        book = Path(order.energy_book) if order.energy_book else None
        coefficients = energy.load(book) if order.query.with_energy else None
        if order.form == "html":
            data = html(await plotdata.read(store, folder, order.query, coefficients), is_live=True).encode()
        else:
            data = export.encoded(await breakdown.read(store, folder, order.query, coefficients), order.form)
    if len(data) > BYTES_MAX:
        raise InvalidInput(f"this report has {len(data):,} bytes, at most {BYTES_MAX:,} are sent; group by less")
    return data


def _own(folder: Path) -> Path:
    """Copies that somebody else can write would be somebody else's numbers. Raises `CacheUnusable`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise CacheUnusable(f"copies of the ledger cannot be kept in {folder}: {error.strerror}") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise CacheUnusable(f"others can write to {folder}: remove it")
    return folder


if __name__ == "__main__":
    sys.exit(main())

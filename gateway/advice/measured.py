"""What `steelyard advise` measured of one artifact on this host: plain figures, and where the publisher's differ from them.

`measuring` and `trial` fill these; everything else in this room only reads them.
"""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET

from gateway.advice.service import Service
from gateway.contract.manifest import Manifest, Variant

DISAGREE_ABOVE = 1.5
"""Figures further apart than this factor are told: another CPU explains less, or explains it and the reader should know."""

OWN_SHARE_MIN = 0.8
"""Below, what else the machine does is told: it blurs how times vary, whatever is taken out of their mean."""

RESIDENT_BYTES_TOLD = 8 << 20
"""Below, what malloc had free before decides what a session adds."""


class Cell(msgspec.Struct, frozen=True):
    """Runs of the bare graph in the gateway's session, one batch size and one length. Nanoseconds; `cpu_ns` is of all threads."""

    batch_rows: int
    length: int
    cpu_ns: int
    p50_ns: int
    p99_ns: int
    runs: int

    @property
    def row_cpu_ns(self) -> float:
        return self.cpu_ns / self.batch_rows

    @property
    def batch(self) -> str:
        return f"{self.batch_rows}" if self.length == 1 else f"{self.batch_rows} x {self.length}"


class Served(msgspec.Struct, frozen=True):
    """One gateway process answering requests of one row over HTTP as JSON.

    `request_cpu_ns` is CPU of the whole process per answer: HTTP, decoding, the run, encoding, receipts. `resident_bytes` is all of
    the process with this model; `cold_start_ns` from starting it to its first answer, the files on local disk. `own_share`: of the
    time in which it answered, what its core was its own; what others took is not in `service`.
    """

    request_cpu_ns: int
    service: Service
    resident_bytes: int
    cold_start_ns: int
    own_share: float = 1.0


class Measured(msgspec.Struct, frozen=True):
    """Everything. `build_ns` and `resident_bytes` are of the session alone. `is_real`: on inputs that the publisher recorded."""

    model: str
    version: int
    variant: str
    cpu: str
    cells: tuple[Cell, ...]
    build_ns: int
    resident_bytes: int
    is_real: bool
    served: Served

    @property
    def best(self) -> Cell:
        """The cheapest row, at the longest length."""
        longest = max(cell.length for cell in self.cells)
        return min((cell for cell in self.cells if cell.length == longest), key=lambda cell: cell.row_cpu_ns)


def disagreements(measured: Measured, manifest: Manifest) -> tuple[str, ...]:
    """Sentences about what was not measured, and about figures of the manifest far from what was; none when they agree."""
    text = () if manifest.text is UNSET else (f"measured on tokens; reading '{manifest.text.column}' comes on top",)
    share = measured.served.own_share
    busy = (f"other work had the core {1 - share:.0%} of the time: its part is taken out; a quiet machine tells more",)
    return (
        *text,
        *(busy if share < OWN_SHARE_MIN else ()),
        *_disagreements(measured, manifest.variant(measured.variant)),
    )


def _disagreements(measured: Measured, variant: Variant) -> Iterator[str]:
    published = {(cell.batch_rows, cell.length): cell.p50_ns for cell in variant.latency}
    for cell in measured.cells:
        if (said := published.get((cell.batch_rows, cell.length))) and _apart(said, cell.cpu_ns):
            yield f"a run of batch {cell.batch} takes {_ms(cell.cpu_ns)} of CPU here; the manifest says {_ms(said)}"
    if variant.load_ns and _apart(variant.load_ns, measured.build_ns):
        yield f"loading takes {_ms(measured.build_ns)} here; the manifest says {_ms(variant.load_ns)}"
    both = (variant.resident_bytes or 0, measured.resident_bytes)
    if variant.resident_bytes and max(both) > RESIDENT_BYTES_TOLD and _apart(*both):
        here_mib, said_mib = measured.resident_bytes / 2**20, variant.resident_bytes / 2**20
        yield f"the session resides in {here_mib:.1f} MiB here; the manifest says {said_mib:.1f} MiB"


def _apart(a: int, b: int) -> bool:
    return max(a, b) > DISAGREE_ABOVE * max(1, min(a, b))


def _ms(time_ns: int) -> str:
    return f"{time_ns / 1e6:.3g} ms"

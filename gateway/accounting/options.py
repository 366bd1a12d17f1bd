"""What an operator may decide about the ledger; `gateway.settings` gathers it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.contract.words import Positive


class LedgerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`flush_interval_s`: what a crash may leave unattributed; a PUT every 10 s costs $1.30 a month on S3.

    `flush_rows`: a segment of 20,000 requests is 1.1 MB and 0.1 s of CPU. `drain_s`: how long an exit waits for the store; Fargate
    kills after 30 s. An outage of the store holds `pending_bytes_max` in memory and `spill_bytes_max` on local disk before requests
    are kept as sums only: a gibibyte is five hours at 1,000 requests a second, and little beside the 20 GiB of a Fargate task; 0
    keeps only sums on disk. `spill_dir`: where; empty means in the gateway's cache. What is there survives a crash, and the next
    gateway started in the same place writes it.
    """

    flush_interval_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    flush_rows: Positive = 20_000
    pending_bytes_max: Positive = 64 << 20
    spill_dir: str = ""
    spill_bytes_max: Annotated[int, Meta(ge=0, le=2**50)] = 1 << 30
    put_timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    drain_s: Annotated[float, Meta(ge=0)] = 10.0

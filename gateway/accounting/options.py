"""What an operator may decide about the ledger; `gateway.settings` gathers it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.contract.words import Positive


class LedgerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`detail`: of which requests the ledger keeps a line of its own, with its times and bytes. `request`: of each. `sampled`: of a
    random `sampled_rate` of them. `minute`: of none; a segment then holds one minute's sums. Sums by model, version, tenant and
    outcome, and so all costs, are exact in all three; latencies are known of requests with a line only.

    `flush_interval_s`: what a crash may leave unattributed; a PUT every 10 s costs $1.30 a month on S3.

    `flush_rows`: a segment of 20,000 requests is 1.1 MB and 0.1 s of CPU. `drain_s`: how long an exit waits for the store; Fargate
    kills after 30 s. An outage of the store holds `pending_bytes_max` in memory and `spill_bytes_max` on local disk before requests
    are kept as sums only: a gibibyte is five hours at 1,000 requests a second, and little beside the 20 GiB of a Fargate task; 0
    keeps only sums on disk. `spill_dir`: where; empty means in the gateway's cache. What is there survives a crash, and the next
    gateway started in the same place writes it.

    `before_answers`: whether an answer waits until the ledger is written, for at most `answer_wait_s`: `each`, when `due` (what is
    unwritten is older than `flush_interval_s`), `never`; `auto` is `due` where the platform freezes the process between calls, for
    there is no later. Not `each`, for a PUT ($5 a million) costs ten times what such a call does.
    """

    detail: Literal["request", "sampled", "minute"] = "request"
    sampled_rate: Annotated[float, Meta(gt=0, le=1)] = 0.01
    flush_interval_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    flush_rows: Positive = 20_000
    pending_bytes_max: Positive = 64 << 20
    spill_dir: str = ""
    spill_bytes_max: Annotated[int, Meta(ge=0, le=2**50)] = 1 << 30
    put_timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    drain_s: Annotated[float, Meta(ge=0)] = 10.0
    before_answers: Literal["auto", "each", "due", "never"] = "auto"
    answer_wait_s: Annotated[float, Meta(gt=0, le=30)] = 1.0

    @property
    def detail_share(self) -> float:
        """Of all requests, how many have a line."""
        return {"request": 1.0, "sampled": self.sampled_rate, "minute": 0.0}[self.detail]

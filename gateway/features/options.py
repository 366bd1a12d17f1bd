"""What an operator may say about the counting of rows; see `gateway.features.recorder`."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.contract.words import Positive


class FeatureOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sample`: which share of the rows is counted, each by its own dice. At 0.02 that takes 0.2 us of CPU for a request of one row
    and 3 us for one of 64, which is 0.2 % and 1.5 % of them; at 1 it takes 2.4 and 32 us (`python -m tests.bench.features`, a busy
    machine of two cores). A verdict needs 500 counted rows per window: raise it where a week has fewer than 25,000.

    `flush_interval_s`: what a crash may lose; on S3 a PUT every 5 minutes is 4 cents a month for each container and version called.
    `queue_rows_max` and `queue_bytes_max` bound what waits to be counted: full, rows are dropped and the drops counted.
    `drain_s`: how long an exit waits for the store, besides what `server.drain_s` and the ledger take of the 30 s until a kill.
    """

    enabled: bool = True
    sample: Annotated[float, Meta(ge=0.01, le=1)] = 0.02
    flush_interval_s: Annotated[float, Meta(gt=0, le=3600)] = 300.0
    queue_rows_max: Positive = 8192
    queue_bytes_max: Positive = 32 << 20
    put_timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    drain_s: Annotated[float, Meta(ge=0)] = 0.5

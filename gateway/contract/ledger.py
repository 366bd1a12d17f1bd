"""The ledger's records: one segment is one gzip of JSON lines that balances in itself.

A segment covers the interval [from_ns, to_ns) of one container's life. Its lines are, in order: one `segment` header, the origin
`charge` of each sku for the interval, the `posting`s that distribute exactly those charges over accounts, then the `request`s
whose costs add up to the `infer` postings (unless some were collapsed into those sums). Sums of postings equal sums of charges as
integers: `gateway.accounting` writes it so, `gateway.reports` checks it. Money is pico-dollars (1e-12 USD), time is nanoseconds
since the Unix epoch.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.contract.words import Count, Positive, Sha256

Outcome = Literal["ok", "invalid", "failed", "timed_out", "cancelled", "shed"]
Account = Literal[
    "infer",
    "resident",
    "load",
    "overhead",
    "ledger",
    "boot",
    "drain",
    "idle_cpu",
    "idle_mem",
    "unattributed",
    "unpriced",
]
Unit = Literal["milli-vcpu-ns", "byte-ns", "requests"]


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One price cut in two: between `low` and `high` of `whole` equal parts of what `times` units of `sku` cost."""

    sku: str
    low: Count
    high: Positive
    whole: Positive
    times: Positive = 1


class ProvisionedSku(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the container holds for its whole life: `amount` thousandths of a vCPU, or bytes of memory; or 1, of its requests.

    `priced_on` is the day whose price holds for all of the life, where the book has several ("": the newest). A machine with one
    price has a `part` of it for its vCPUs and one for its memory.
    """

    sku: str
    unit: Unit
    amount: Positive
    priced_on: str = ""
    part: Part | None = None


class Basis(msgspec.Struct, frozen=True):
    """What a bill rests on: how the platform and the size became known (a setting, the platform's metadata, the cgroup, assumed).

    What has no price is in `unpriced`, by sku.
    """

    platform_from: str
    size_from: str
    unpriced: tuple[str, ...] = ()


class Open(msgspec.Struct, frozen=True):
    """When the bill began. `boot_ns` tells two lives of one container id apart.

    `resource` is what the provider's bill calls the container: the whole ARN of an ECS task. Unset where nothing said it.
    """

    container: str
    boot_ns: Count
    opened_ns: Count
    platform: str
    provisioned: tuple[ProvisionedSku, ...]
    price_book_sha256: Sha256
    software: str
    basis: Basis | UnsetType = UNSET  # unset in records of before it existed, which must keep their bytes
    resource: str | UnsetType = UNSET  # as above
    schema_version: int = 1


class Close(msgspec.Struct, frozen=True):
    """When the bill ended; `segments` makes a missing last segment provable."""

    container: str
    boot_ns: Count
    closed_ns: Count
    segments: Count
    last_sha256: str
    cost_picousd: Count
    schema_version: int = 1


class Ended(msgspec.Struct, frozen=True):
    """When the bill of a container ended that could not say so itself: killed, out of memory, its machine lost.

    `evidence` is where that is known from, such as `ECS task stopped`. Only the moment is stored: what nobody used until then is
    computed from it, so that a segment that comes late takes its part away again.
    """

    container: str
    boot_ns: Count
    ended_ns: Count
    evidence: str
    schema_version: int = 1


class Segment(msgspec.Struct, frozen=True, tag="segment"):
    """The first line. `previous_sha256` is the digest of the previous segment's stored bytes ("" for the first).

    `requests` counts all of them; `collapsed` says how many of these have no line of their own and are only in the `infer` sums.
    """

    container: str
    boot_ns: Count
    seq: Count
    previous_sha256: str
    from_ns: Count
    to_ns: Count
    price_book_sha256: Sha256
    cost_picousd: Count
    requests: Count
    collapsed: Count = 0
    schema_version: int = 1


class Charge(msgspec.Struct, frozen=True, tag="charge", omit_defaults=True):
    """What the platform bills for the interval: price times `quantity` (provisioned amount times billed nanoseconds, or requests).

    Where not the lifetime is billed, `since` is how much (nanoseconds, requests) the life had been billed before the interval. The
    last one of a life also bills `beyond`: what the platform's minimum and its steps add after the end, posted to `boot`. A sku
    without a price costs 0 here, and its quantity is posted to `unpriced`.
    """

    sku: str
    unit: Unit
    quantity: Count
    cost_picousd: Count
    beyond: Count = 0
    since: Count = 0


class Phases(msgspec.Struct, omit_defaults=True):
    """What a start or a load spent its time on: elapsed nanoseconds, 0 where it did not happen. Filled as it goes, so not frozen.

    A start goes from the process's beginning: `interpreter` until our first line, `imports`, `settings`, `store` (opening it and
    its first answer), loads, `app` (HTTP's), `other`, and `ready`: when requests may come, counted from the beginning. A load:
    `download` (what was not in the local cache), `verify` (digests, golden vectors), `session`, `warm_up`. Loads at the same time
    may take longer together than the clock. `first_run` is the model's run for the first request answered, at `first_answer`.
    """

    interpreter_ns: Count = 0
    imports_ns: Count = 0
    settings_ns: Count = 0
    store_ns: Count = 0
    download_ns: Count = 0
    verify_ns: Count = 0
    session_ns: Count = 0
    warm_up_ns: Count = 0
    app_ns: Count = 0
    other_ns: Count = 0
    ready_ns: Count = 0
    first_run_ns: Count = 0
    first_answer_ns: Count = 0


class Posting(msgspec.Struct, frozen=True, tag="posting", omit_defaults=True):
    """A part of one sku's charge, by account and, where there is one, by model.

    `quantity` is the measured weight, in the charge's unit. Only `infer` postings of the vCPU carry `requests` and `rows`, so that
    those of what the platform bills per request do not count them again. The vCPU posting of
    a `load`, or of the `boot` that ended in the interval, says in `phases` where the time went when the gateway recorded it.
    """

    account: Account
    sku: str
    cost_picousd: Count
    quantity: Count
    model: str = ""
    version: Count = 0
    tenant: str = ""
    outcome: Outcome | Literal[""] = ""
    requests: Count = 0
    rows: Count = 0
    phases: Phases | None = None


class Request(msgspec.Struct, frozen=True, tag="request", omit_defaults=True, gc=False):
    """One receipt. `cpu_ns` is decode, its share of the batch's run, and encode; `cost_picousd` is what that costs, directly.

    Where the platform bills every request, that is in it.
    """

    id: str
    at_ns: Count
    model: str
    version: Count
    outcome: Outcome
    rows: Count
    cpu_ns: Count
    cost_picousd: Count
    request_bytes: Count = 0
    response_bytes: Count = 0
    queue_ns: Count = 0
    run_ns: Count = 0
    batch_rows: Count = 0
    variant: str = ""
    tenant: str = ""
    door: str = ""


Line = Segment | Charge | Posting | Request

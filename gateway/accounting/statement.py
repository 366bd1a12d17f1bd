"""From what was measured in an interval to what is posted: every pico-dollar of the charge gets an account.

Pure: the ledger writer calls `settle` in a worker thread. Receipts are given out while the interval runs, so `infer` is exactly
their sum; what is left of the vCPU charge is apportioned by CPU time, and the memory charge by byte-nanoseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

import msgspec

from gateway.accounting.split import apportion
from gateway.accounting.tariff import Tariff
from gateway.contract.ledger import Account, Charge, Outcome, Phases, Posting, Request
from gateway.contract.words import HOUR_NS

PhaseName = Literal["boot", "serving", "draining"]
Version = tuple[str, int]
"""A model's name and version."""
InferKey = tuple[str, int, str, Outcome]
"""Model, version, tenant, outcome."""

MILLI = 1000
"""One CPU-nanosecond is 1000 milli-vCPU-nanoseconds."""


@dataclass(slots=True)
class InferTotals:
    """Sums over the requests of one account. `cost_picousd` is that of their CPU; `fee_picousd` what the platform bills for `calls`
    requests that came from outside.
    """

    cost_picousd: int = 0
    fee_picousd: int = 0
    calls: int = 0
    cpu_ns: int = 0
    requests: int = 0
    rows: int = 0


@dataclass(slots=True)
class Phase:
    """How long a phase of the container's life was billed within the interval, and the CPU that the process used in it."""

    wall_ns: int = 0
    cpu_ns: int = 0


@dataclass(slots=True, eq=False)
class Interval:
    """What was measured in [from_ns, to_ns). The meter writes it until it is closed, `settle` reads it afterwards.

    `boot_named_ns` is the CPU of requests and loads during boot. The memory integrals cover only what follows boot. `boot_phases`
    and `load_phases` are what was recorded of how boot and loads spent their time; they weigh nothing. `beyond_ns` is what the
    platform bills after `to_ns`, when the life ends there. Ages are billed time of the life, requests those billed in it;
    `is_dated` says that ages are times since boot.
    """

    from_ns: int
    to_ns: int = 0
    from_age_ns: int = 0
    to_age_ns: int = 0
    from_requests: int = 0
    to_requests: int = 0
    is_dated: bool = True
    beyond_ns: int = 0
    boot: Phase = field(default_factory=Phase)
    serving: Phase = field(default_factory=Phase)
    draining: Phase = field(default_factory=Phase)
    boot_named_ns: int = 0
    infer: dict[InferKey, InferTotals] = field(default_factory=dict)
    loads: dict[Version, int] = field(default_factory=dict)
    boot_phases: Phases | None = None
    load_phases: dict[Version, Phases] = field(default_factory=dict)
    ledger_cpu_ns: int = 0
    rss_byte_ns: int = 0
    resident_byte_ns: dict[Version, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    @property
    def hour_end_ns(self) -> int:
        """Of the hour (UTC) that it began in: the latest end it can have."""
        return (self.from_ns // HOUR_NS + 1) * HOUR_NS

    @property
    def request_count(self) -> int:
        """With those that have no line among `requests`."""
        return sum(totals.requests for totals in self.infer.values())

    @property
    def named_ns(self) -> int:
        """CPU of requests and loads."""
        return sum(totals.cpu_ns for totals in self.infer.values()) + sum(self.loads.values())


class Statement(msgspec.Struct, frozen=True, eq=False):
    """An interval's charges and the postings that distribute exactly them. `requests` may hold fewer than `request_count`."""

    from_ns: int
    to_ns: int
    charges: tuple[Charge, ...]
    postings: tuple[Posting, ...]
    requests: Sequence[Request]
    request_count: int

    @property
    def cost_picousd(self) -> int:
        """All skus together."""
        return sum(charge.cost_picousd for charge in self.charges)


_cost_of = attrgetter("cost_picousd")


class _Claim(msgspec.Struct, frozen=True):
    """Somebody's weight in a split."""

    account: Account
    weight: int
    version: Version = ("", 0)
    phases: Phases | None = None


def settle(interval: Interval, *, vcpu: Tariff, memory: Tariff, fee: Tariff | None = None) -> Statement:
    """The interval's statement: per sku the postings add up to the charge, and the receipts to the `infer` postings."""
    ages = (interval.from_age_ns, interval.to_age_ns, interval.to_age_ns + interval.beyond_ns)
    infer = _infer_postings(interval, vcpu.provisioned.sku)
    settled = [
        _settled(vcpu, ages, infer, _cpu_claims(interval, vcpu.provisioned.amount), "idle_cpu", interval.is_dated),
        _settled(memory, ages, [], _memory_claims(interval, memory.provisioned.amount), "idle_mem", interval.is_dated),
    ]
    if fee is not None:
        counts = (interval.from_requests, interval.to_requests, interval.to_requests)
        named = _fee_postings(interval, fee.provisioned.sku)
        others = counts[1] - counts[0] - sum(posting.quantity for posting in named)
        settled.append(_settled(fee, counts, named, [_Claim("overhead", others)], "overhead", is_dated=False))
    postings = tuple(posting for _, posted in settled for posting in posted)
    if len(interval.requests) == interval.request_count:
        receipts_picousd = sum(posting.cost_picousd for posting in postings if posting.account == "infer")
        assert sum(map(_cost_of, interval.requests)) == receipts_picousd
    return Statement(
        interval.from_ns,
        interval.to_ns,
        tuple(charge for charge, _ in settled),
        postings,
        interval.requests,
        interval.request_count,
    )


def _settled(
    tariff: Tariff,
    ages: tuple[int, int, int],
    given: list[Posting],
    claims: list[_Claim],
    idle: Account,
    is_dated: bool,
) -> tuple[Charge, list[Posting]]:
    """One sku's charge and its postings: those `given`, the rest by claims, and what is billed beyond the end to `boot`."""
    charge = tariff.charge(*ages, is_dated=is_dated)
    if not tariff.is_priced:
        claimed = sum(posting.quantity for posting in given)
        rest = max(0, charge.quantity + charge.beyond - claimed)
        return charge, [*given, Posting("unpriced", charge.sku, 0, quantity=rest)]
    lived_picousd = tariff.charge(*ages[:2]).cost_picousd
    unclaimed = lived_picousd - sum(posting.cost_picousd for posting in given)
    assert unclaimed >= 0, "receipts exceed the charge"
    postings = [*given, *_split(unclaimed, charge.sku, claims, idle=idle)]
    if charge.beyond:
        # A minimum is the price of having started, as is the time before the process: never that of whoever asked last.
        postings.append(Posting("boot", charge.sku, charge.cost_picousd - lived_picousd, quantity=charge.beyond))
    assert sum(map(_cost_of, postings)) == charge.cost_picousd
    return charge, postings


def _infer_postings(interval: Interval, sku: str) -> list[Posting]:
    return [
        Posting(
            account="infer",
            sku=sku,
            cost_picousd=totals.cost_picousd,
            quantity=totals.cpu_ns * MILLI,
            model=model,
            version=version,
            tenant=tenant,
            outcome=outcome,
            requests=totals.requests,
            rows=totals.rows,
        )
        for (model, version, tenant, outcome), totals in sorted(interval.infer.items(), key=lambda item: item[0])
    ]


def _fee_postings(interval: Interval, sku: str) -> list[Posting]:
    """What the platform bills for each request itself, to those who asked; checks and refusals before a model are overhead."""
    return [
        Posting("infer", sku, totals.fee_picousd, totals.calls, model, version, tenant, outcome)
        for (model, version, tenant, outcome), totals in sorted(interval.infer.items(), key=lambda item: item[0])
        if totals.calls
    ]


def _cpu_claims(interval: Interval, vcpu_milli: int) -> list[_Claim]:
    """Boot owns all of its time but requests and loads; after it, what the process used and nobody named is overhead."""
    serving, draining = interval.serving, interval.draining
    named_ns = interval.named_ns - interval.boot_named_ns + interval.ledger_cpu_ns
    return [
        *(
            _Claim("load", cpu_ns * MILLI, version, interval.load_phases.get(version))
            for version, cpu_ns in sorted(interval.loads.items())
        ),
        _Claim("ledger", interval.ledger_cpu_ns * MILLI),
        _Claim(
            "boot",
            interval.boot.wall_ns * vcpu_milli - interval.boot_named_ns * MILLI,
            phases=interval.boot_phases,
        ),
        _Claim("overhead", (serving.cpu_ns + draining.cpu_ns - named_ns) * MILLI),
        _Claim("drain", draining.wall_ns * vcpu_milli - draining.cpu_ns * MILLI),
        _Claim("idle_cpu", serving.wall_ns * vcpu_milli - serving.cpu_ns * MILLI),
    ]


def _memory_claims(interval: Interval, memory_bytes: int) -> list[_Claim]:
    """A model owns what it holds even when nobody calls it: that is the price of warm."""
    resident = sorted(interval.resident_byte_ns.items())
    resident_byte_ns = sum(byte_ns for _, byte_ns in resident)
    used_byte_ns = max(interval.rss_byte_ns, resident_byte_ns)
    after_boot_ns = interval.serving.wall_ns + interval.draining.wall_ns
    return [
        *(_Claim("resident", byte_ns, version) for version, byte_ns in resident),
        _Claim("boot", interval.boot.wall_ns * memory_bytes),
        _Claim("overhead", used_byte_ns - resident_byte_ns),
        _Claim("idle_mem", after_boot_ns * memory_bytes - used_byte_ns),
    ]


def _split(cost_picousd: int, sku: str, claims: list[_Claim], *, idle: Account) -> list[Posting]:
    """A claim below zero is noise between two clocks and gets nothing; what nobody claims is `idle`."""
    positive = [claim for claim in claims if claim.weight > 0]
    if not positive:
        return [Posting(idle, sku, cost_picousd, quantity=0)]
    parts = apportion(cost_picousd, [claim.weight for claim in positive])
    return [
        Posting(claim.account, sku, part, claim.weight, *claim.version, phases=claim.phases)
        for claim, part in zip(positive, parts, strict=True)
    ]

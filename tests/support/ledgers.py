"""Ledgers as a gateway would write them, from the contract's structs alone and from a seed.

Deliberately not written with `gateway.accounting`: what reads a ledger is tested against a second witness of the contract. `Ledger`
maps keys to stored bytes; a test damages one by changing the mapping.
"""

import gzip
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.contract import codec, layout
from gateway.contract.ledger import Charge, Close, Line, Open, Posting, ProvisionedSku, Request, Segment
from gateway.reports.sync import LocalLedger

HOUR_NS = 3600 * 10**9
T0_NS = 1_793_880_000 * 10**9  # 2026-11-05T12:00:00Z
BOOK = "0" * 64
VCPU, MEMORY = "fargate-x86/vcpu", "fargate-x86/memory"
VCPU_MILLI, MEMORY_BYTES = 2000, 4 << 30

Ledger = dict[str, bytes]
Lines = Sequence[Charge | Posting | Request]

_encoder = msgspec.json.Encoder()


def write(root: Path, ledger: Ledger) -> LocalLedger:
    """The objects as files below `root`, and what `sync` would say of them."""
    for key, body in ledger.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    keys = sorted(ledger)
    return LocalLedger(
        segments=tuple(root / key for key in keys if key.endswith(".jsonl.gz")),
        opens=tuple(root / key for key in keys if key.endswith("-open.json")),
        closes=tuple(root / key for key in keys if key.endswith("-close.json")),
    )


def segment_keys(ledger: Ledger) -> list[str]:
    return sorted(key for key in ledger if key.startswith(layout.segments()))


def lines(body: bytes) -> list[Line]:
    return msgspec.json.Decoder(Line).decode_lines(gzip.decompress(body))


def pack(rows: Sequence[Line]) -> bytes:
    return gzip.compress(_encoder.encode_lines(rows), 1, mtime=0)


def all_lines(ledger: Ledger) -> list[Line]:
    return [line for key in segment_keys(ledger) for line in lines(ledger[key])]


def container(
    name: str,
    segments: Sequence[Lines],
    *,
    boot_ns: int = T0_NS,
    length_ns: int = 60 * 10**9,
    is_closed: bool = True,
    book: str = BOOK,
    resource: str = "",
) -> Ledger:
    """One container's life: these segments one after the other, chained, with its open and close records.

    `resource` is what the provider's bill calls it.
    """
    ledger: Ledger = {}
    provisioned = (
        ProvisionedSku(VCPU, "milli-vcpu-ns", VCPU_MILLI),
        ProvisionedSku(MEMORY, "byte-ns", MEMORY_BYTES),
    )
    opening = Open(
        name, boot_ns, boot_ns, "fargate-x86", provisioned, book, "steelyard 0.1.0", resource=resource or msgspec.UNSET
    )
    ledger[layout.container_open(name, boot_ns)] = codec.encode(opening)
    sha256, cost = "", 0
    for seq, rows in enumerate(segments):
        from_ns = boot_ns + seq * length_ns
        charged = sum(row.cost_picousd for row in rows if isinstance(row, Charge))
        requests = sum(row.requests for row in rows if isinstance(row, Posting))
        detailed = sum(isinstance(row, Request) for row in rows)
        header = Segment(
            name, boot_ns, seq, sha256, from_ns, from_ns + length_ns, book, charged, requests, requests - detailed
        )
        body = pack([header, *rows])
        ledger[layout.segment(from_ns=from_ns, container=name, boot_ns=boot_ns, seq=seq)] = body
        sha256, cost = codec.sha256(body), cost + charged
    if is_closed:
        closed_ns = boot_ns + len(segments) * length_ns
        closing = Close(name, boot_ns, closed_ns, len(segments), sha256, cost)
        ledger[layout.container_close(name, boot_ns)] = codec.encode(closing)
    return ledger


def charges(vcpu_picousd: int, memory_picousd: int, *, length_ns: int = 60 * 10**9) -> list[Charge]:
    return [
        Charge(VCPU, "milli-vcpu-ns", VCPU_MILLI * length_ns, vcpu_picousd),
        Charge(MEMORY, "byte-ns", MEMORY_BYTES * length_ns, memory_picousd),
    ]


def random_ledger(seed: int, *, with_models: bool = True) -> Ledger:
    """One to three containers with up to four balanced segments each; amounts from nothing to more than 2**53 picousd."""
    rng = random.Random(seed)
    ledger: Ledger = {}
    for index in range(rng.randint(1, 3)):
        segments = [_random_lines(rng, with_models=with_models) for _ in range(rng.randint(0, 4))]
        boot_ns = T0_NS + rng.randint(0, 30 * 60) * 10**9
        ledger |= container(f"c{index}", segments, boot_ns=boot_ns, is_closed=rng.random() < 0.8)
    return ledger


def _random_lines(rng: random.Random, *, with_models: bool) -> Lines:
    postings: list[Posting] = []
    requests: list[Request] = []
    names = [("digits", 1), ("digits", 2), ("flights", 7), ("=1+1", 1)]
    for model, version in rng.sample(names, rng.randint(0, 4)) if with_models else []:
        for outcome in rng.sample(["ok", "failed", "invalid"], rng.randint(0, 3)):
            costs = [_amount(rng) for _ in range(rng.randint(1, 3))]
            requests += [
                Request(f"r{rng.getrandbits(64):x}", T0_NS, model, version, outcome, 2, 1000, cost) for cost in costs
            ]
            count = len(costs)
            postings.append(
                Posting("infer", VCPU, sum(costs), 10**6 * count, model, version, "", outcome, count, 2 * count)
            )
        if rng.random() < 0.5:
            postings.append(Posting("load", VCPU, _amount(rng), 5, model, version))
        if rng.random() < 0.7:
            postings.append(Posting("resident", MEMORY, _amount(rng), 10**20 + 1, model, version))
    if rng.random() < 0.3:
        postings.append(Posting("infer", VCPU, _amount(rng), 1000, "", 0, "", "shed", 1, 0))
    accounts = rng.sample(["idle_cpu", "overhead", "boot", "ledger", "drain"], rng.randint(0, 5))
    postings += [Posting(account, VCPU, _amount(rng), 1) for account in accounts]
    if rng.random() < 0.8:
        postings.append(Posting("idle_mem", MEMORY, _amount(rng), 1))
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*charges(bill[VCPU], bill[MEMORY]), *postings, *requests]


def _amount(rng: random.Random) -> int:
    return rng.choice([0, 1, rng.randint(0, 10**6), rng.randint(0, 10**12), rng.randint(0, 2**60)])

"""Bills as a provider would write them, and ledgers of some hours that they are about; from a seed."""

import random
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from gateway.contract.ledger import Charge, Posting
from gateway.wording import moment
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

HEADER = (
    "ChargePeriodStart,ChargePeriodEnd,ServiceName,ResourceId,SkuId,SkuMeter,PricingQuantity,PricingUnit,ChargeCategory,"
    "BillingCurrency,EffectiveCost"
)
UNKNOWN = "arn:aws:ecs:us-east-1:1:task/prod/nobody"
FROM_NS = T0_NS // (24 * HOUR_NS) * 24 * HOUR_NS


class BillRow(msgspec.Struct, frozen=True):
    """One line; `hours` are counted from the day's beginning."""

    resource: str
    sku: str
    cost_picousd: int
    hours: tuple[int, int] = (12, 13)
    quantity: str = ""
    unit: str = ""
    meter: str = ""
    category: str = "Usage"
    service: str = "AWS Fargate"
    currency: str = "USD"

    @property
    def text(self) -> str:
        span = (moment(FROM_NS + hour * HOUR_NS) for hour in self.hours)
        cost = f"{Decimal(self.cost_picousd).scaleb(-12):f}"
        words = (self.service, self.resource, self.sku, self.meter, self.quantity, self.unit, self.category)
        return ",".join([*span, *words, self.currency, cost])


def write(path: Path, rows: Sequence[BillRow], *, newline: str = "\n", bom: str = "") -> Path:
    path.write_bytes((bom + newline.join([HEADER, *(row.text for row in rows), ""])).encode())
    return path


def ledger(rng: random.Random) -> Ledger:
    """Up to three containers in the hours 12 to 14, one life in each hour; some hours without traffic, one sku without a price."""
    found: Ledger = {}
    for index in range(rng.randint(1, 3)):
        for hour in rng.sample(range(3), rng.randint(1, 3)):
            found |= ledgers.container(f"c{index}", [_segment(rng)], boot_ns=T0_NS + hour * HOUR_NS)
    return found


def _segment(rng: random.Random) -> list[Charge | Posting]:
    postings = [Posting("idle_cpu", VCPU, _amount(rng), 1), Posting("idle_mem", MEMORY, _amount(rng), 1)]
    for model, tenant in rng.sample(
        [("digits", ""), ("digits", "acme"), ("flights", ""), ("=1+1", "a,b")], rng.randint(0, 3)
    ):
        postings.append(Posting("infer", VCPU, _amount(rng), 1000, model, 1, tenant, "ok", 1, 2))
        postings.append(Posting("resident", MEMORY, _amount(rng), 5, model, 1))
    costs: dict[str, int] = defaultdict(int)
    for posting in postings:
        costs[posting.sku] += posting.cost_picousd
    return [*ledgers.charges(costs[VCPU], costs[MEMORY]), *postings]


def _amount(rng: random.Random) -> int:
    return rng.choice([0, 1, rng.randint(0, 10**6), rng.randint(0, 10**10)])


def bill(rng: random.Random, found: Ledger) -> list[BillRow]:
    """Of some of its containers under several names, of one that it does not know, and of none; also credits and other skus."""
    containers = sorted({key.split("/")[4] for key in ledgers.segment_keys(found)}) or ["c0"]
    rows = []
    for name in rng.sample([*containers, UNKNOWN], rng.randint(1, len(containers) + 1)):
        resource = name if name == UNKNOWN else rng.choice([name, f"arn:aws:ecs:us-east-1:1:task/prod/{name}"])
        rows += [_row(rng, resource) for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.3:
        rows.append(_row(rng, ""))
    rng.shuffle(rows)
    return rows


def _row(rng: random.Random, resource: str) -> BillRow:
    start = rng.randint(11, 15)
    sku, meter, unit = rng.choice(
        [
            (VCPU, "", "Core-Hours"),
            (MEMORY, "", "GB-Hours"),
            ("6XAMC6WTJ9S8", "Fargate-vCPU-Hours:perCPU", "hours"),
            ("USE1-Fargate-GB-Hours", "", "hours"),
            ("USE1-Fargate-EphemeralStorage-GB-Hours", "", "GB-Hours"),
            ("BoxUsage:c7i.large", "", "Hrs"),
        ]
    )
    return BillRow(
        *(resource, sku, rng.choice([1, 0, -1, 1, 1]) * _amount(rng)),
        hours=rng.choice([(start, start + 1), (start, start + 2), (0, 24)]),
        quantity=rng.choice(["", "0.033333333333", "1.5", "0"]),
        unit=unit,
        meter=meter,
        category=rng.choice(["Usage", "Usage", "Credit"]),
    )

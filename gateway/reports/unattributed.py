"""What no segment claims of the bills in a local ledger, as lines like a segment's: account `unattributed`, exact as they are.

Computed at every reading and stored nowhere: a segment that comes late takes its part away again. `tables` adds these lines to the
ledger's own, with a number below all segments' so that nobody takes them for links of the chain.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.accounting import unclaimed
from gateway.accounting.unclaimed import Gap, Span
from gateway.contract.ledger import Charge, Close, Ended, Open, Posting, Segment
from gateway.contract.prices import PriceBook
from gateway.reports import copied
from gateway.reports.sync import LocalLedger

NO_SEGMENT = -1
"""The `seq` of these lines."""

Life = tuple[str, int]
T = TypeVar("T", Open, Close, Ended)


class Unclaimed(msgspec.Struct, frozen=True):
    """One gap's lines. `seq` of the header is `NO_SEGMENT`."""

    name: str
    header: Segment
    money: tuple[Charge | Posting, ...]


def find(local: LocalLedger, spans: Mapping[Life, list[Span]], over: Set[Life]) -> Iterator[Unclaimed]:
    """By life and time. `spans` are those of all segments, `over` lives that ended, with a close record or killed before it.

    A life whose price book is not there is left out: the audit says so.
    """
    books = {path.name: PriceBook(path.read_bytes(), name=str(path)) for path in local.books}
    opens, closes, ended = _by_life(local.opens, Open), _by_life(local.closes, Close), _by_life(local.ended, Ended)
    boots: dict[str, list[int]] = defaultdict(list)
    for container, boot_ns in sorted(opens):
        boots[container].append(boot_ns)
    for life, opened in sorted(opens.items()):
        if opened.price_book_sha256 not in books:
            continue
        held = spans.get(life, [])
        missing = unclaimed.missing(
            opened,
            books[opened.price_book_sha256],
            held,
            closed=closes.get(life),
            ended=ended.get(life),
            next_boot_ns=next((boot_ns for boot_ns in boots[life[0]] if boot_ns > life[1]), None),
            is_over=life in over,
        )
        for gap in missing:
            yield _lines(opened, gap)


def _by_life(paths: Iterable[Path], kind: type[T]) -> dict[Life, T]:
    records = [copied.record(path, kind, "ledger record") for path in paths]
    return {(record.container, record.boot_ns): record for record in records}


def _lines(opened: Open, gap: Gap) -> Unclaimed:
    header = Segment(
        container=opened.container,
        boot_ns=opened.boot_ns,
        seq=NO_SEGMENT,
        previous_sha256="",
        from_ns=gap.from_ns,
        to_ns=gap.to_ns,
        price_book_sha256=opened.price_book_sha256,
        cost_picousd=gap.cost_picousd,
        requests=0,
    )
    postings = [
        Posting("unattributed", charge.sku, charge.cost_picousd, charge.quantity + charge.beyond)
        for charge in gap.charges
    ]
    name = f"unattributed:{opened.container}/{opened.boot_ns}/{gap.from_ns}"
    return Unclaimed(name, header, (*gap.charges, *postings))

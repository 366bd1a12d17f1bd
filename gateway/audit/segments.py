"""One stored segment against itself, its key and its container's opening record. Pure, blocking; runs in worker threads."""

from collections.abc import Iterator, Sequence

import msgspec

from gateway.accounting import segment
from gateway.accounting.billing import beyond_ns
from gateway.accounting.segment import ParsedSegment
from gateway.accounting.tariff import Tariff, tariff
from gateway.audit.findings import Finding
from gateway.contract import codec, layout
from gateway.contract.ledger import Charge, Open, Segment
from gateway.contract.prices import Platform, PriceBook
from gateway.contract.words import HOUR_NS
from gateway.errors import ManifestInvalid, SettingsError, WrittenByNewer
from gateway.wording import moment

GZIP_FIXED = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
"""Magic, method, no flags, no time: the part of a gzip header that no checksum covers and that a writer of ours never varies."""


class Checked(msgspec.Struct, frozen=True):
    """What the checks of a whole life need to know of a readable segment: not its lines."""

    key: str
    sha256: str
    header: Segment
    is_last: bool = False


def check(
    key: str, data: bytes, opened: Open | None, books: "dict[str, PriceBook]"
) -> tuple[Checked | None, list[Finding]]:
    """The segment, None when it cannot be read, and what is wrong with it by itself."""
    try:
        if data[:8] != GZIP_FIXED:
            raise ManifestInvalid(f"{key} does not begin as a segment does")  # noqa: TRY301 - one refusal for all damage
        parsed = segment.decode(data, what=key)
    except WrittenByNewer as error:
        return None, [Finding("newer_version", str(error), key=key)]
    except ManifestInvalid as error:
        return None, [Finding("damaged", str(error), key=key)]
    found = [*_place(key, parsed.header), *_money(key, parsed, opened, books), *_times(key, parsed)]
    is_last = any(charge.beyond for charge in parsed.charges)  # only an end bills beyond itself
    return Checked(key, codec.sha256(data), parsed.header, is_last), found


def _place(key: str, header: Segment) -> Iterator[Finding]:
    named = layout.segment(from_ns=header.from_ns, container=header.container, boot_ns=header.boot_ns, seq=header.seq)
    if named != key:
        yield Finding(
            "misplaced",
            f"{key} holds what belongs to {named}",
            key=key,
            container=header.container,
            from_ns=header.from_ns,
        )


def _money(key: str, parsed: ParsedSegment, opened: Open | None, books: "dict[str, PriceBook]") -> Iterator[Finding]:
    header = parsed.header
    for problem in segment.discrepancies(parsed):
        yield Finding("unbalanced", f"{key}: {problem}", key=key, container=header.container, from_ns=header.from_ns)
    yield from charged(key, header, parsed.charges, opened, books)


def charged(
    key: str, header: Segment, charges: Sequence[Charge], opened: Open | None, books: "dict[str, PriceBook]"
) -> Iterator[Finding]:
    """Whether these are what the price book makes of the container's size and the segment's time."""
    book = books.get(header.price_book_sha256)
    if book is None or opened is None:
        return  # missing or edited: said once for the book, not for each of its segments
    ages = (header.from_ns - header.boot_ns, header.to_ns - header.boot_ns)
    if not 0 <= ages[0] < ages[1]:
        return  # `_times` says so
    for charge in charges:
        held = next((known for known in opened.provisioned if known.sku == charge.sku), None)
        if held is None:
            text = f"{key}: charges for '{charge.sku}', which its container did not hold"
            yield Finding("wrong_charge", text, key=key, container=header.container, from_ns=header.from_ns)
            continue
        try:
            due = _due(charge, tariff(book, held), book.platform(opened.platform), ages)
        except SettingsError as error:
            yield Finding(
                "wrong_charge", f"{key}: {error}", key=key, container=header.container, from_ns=header.from_ns
            )
            continue
        if due != charge:
            text = (
                f"{key}: charges {charge.cost_picousd:,} p$ for '{charge.sku}'; "
                f"its price book and its container's size make that {due.cost_picousd:,} p$"
            )
            yield Finding("wrong_charge", text, key=key, container=header.container, from_ns=header.from_ns)


def _due(charge: Charge, priced: Tariff, rule: Platform, ages: tuple[int, int]) -> Charge:
    """What the charge must be. How much was billed follows from the time only where the lifetime is."""
    if rule.billed != "lifetime":
        return priced.charge(charge.since, charge.since + charge.quantity // priced.provisioned.amount, is_dated=False)
    # Only a life's last segment bills beyond its end, and then exactly what the platform's rule adds there.
    beyond = beyond_ns(rule, ages[1]) if charge.beyond else 0
    return priced.charge(*ages, ages[1] + beyond)


def _times(key: str, parsed: ParsedSegment) -> Iterator[Finding]:
    header = parsed.header
    last_ns = (header.from_ns // HOUR_NS + 1) * HOUR_NS
    if not header.boot_ns <= header.from_ns < header.to_ns <= last_ns:
        text = f"{key}: [{moment(header.from_ns)}, {moment(header.to_ns)}) is no stretch of one hour after its boot"
        yield Finding("clock_jump", text, key=key, container=header.container, from_ns=header.from_ns)
    outside = [request for request in parsed.requests if not header.from_ns <= request.at_ns <= header.to_ns]
    if outside:
        text = f"{key}: {len(outside):,} requests, first {outside[0].id}, lie outside the segment's time"
        yield Finding("clock_jump", text, key=key, container=header.container, from_ns=header.from_ns)
    if len({request.id for request in parsed.requests}) < len(parsed.requests):
        text = f"{key}: a request is recorded more than once"
        yield Finding("duplicate", text, key=key, container=header.container, from_ns=header.from_ns)

"""The segments of one container's life against each other, its records and its price: order, chain, time, and what nobody claims.

Pure. A listing alone shows which segments there are; contents are compared where both neighbours were read.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gateway.accounting import unclaimed
from gateway.audit.findings import Finding, Kind
from gateway.audit.segments import Checked
from gateway.contract.ledger import Close, Ended, Open
from gateway.contract.prices import PriceBook
from gateway.errors import SettingsError
from gateway.wording import moment, usd

CLOCK_SLACK_NS = 5 * 60 * 10**9
"""Machines that keep time differ by milliseconds; a record this far in the future was written by one that does not."""


@dataclass(eq=False)
class Life:
    """What was found of it. `seqs` are of all its segments that the listing shows, `read` of those that could be read."""

    container: str
    boot_ns: int
    opened: Open | None = None
    closed: Close | None = None
    ended: Ended | None = None
    next_boot_ns: int | None = None
    has_open: bool = False
    seqs: dict[int, list[str]] = field(default_factory=dict)
    read: list[Checked] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For messages."""
        return f"container {self.container} (boot {moment(self.boot_ns)})"


def check(life: Life, books: dict[str, PriceBook], now_ns: int, *, is_whole: bool) -> tuple[list[Finding], int]:
    """What is wrong, and how much of the life's bill nobody claims. `is_whole`: the audit is of all times, not of a period."""
    life.read.sort(key=lambda one: (one.header.seq, one.key))
    found = [*_numbers(life), *chain(life), *_clock(life, now_ns)]
    if life.closed is not None:
        found += _end(life, life.closed)
    if not life.has_open:
        found.append(_finding(life, "never_opened", f"{life.name} has no opening record: its size is not known"))
    unattributed = 0
    if is_whole and life.opened is not None:
        notes, unattributed = _unattributed(life, life.opened, books, now_ns)
        found += notes
    return found, unattributed


def _finding(
    life: Life, kind: Kind, message: str, *, is_fault: bool = True, key: str = "", from_ns: int = 0
) -> Finding:
    return Finding(kind, message, is_fault, key, life.container, from_ns or life.boot_ns)


def _numbers(life: Life) -> Iterator[Finding]:
    """By keys alone, so that also what cannot be read is neither missing nor doubled."""
    promised = life.closed.segments if life.closed is not None else 0
    expected = 0
    for seq in sorted(life.seqs):
        if seq > expected:
            yield _finding(life, "gap", f"{life.name}: {_missing(expected, seq - 1)}")
        if len(life.seqs[seq]) > 1:
            yield _finding(
                life,
                "duplicate",
                f"{life.name}: segment {seq} lies at {' and at '.join(life.seqs[seq])}",
                key=life.seqs[seq][1],
            )
        expected = seq + 1
    if promised > expected:
        yield _finding(life, "gap", f"{life.name}: {_missing(expected, promised - 1)}, its close record says")


def _missing(first: int, last: int) -> str:
    return f"segment {first} is missing" if first == last else f"segments {first} to {last} are missing"


def chain(life: Life) -> Iterator[Finding]:
    """Neighbours among what was read, which must be sorted by number: each carries the digest of the one before."""
    before: Checked | None = None
    for one in life.read:
        if before is not None and one.header.seq == before.header.seq:
            continue  # `_numbers` names the duplicate
        problem = _link(before, one)
        if problem:
            yield _finding(
                life, "broken_chain", f"{life.name}: {one.key} {problem}", key=one.key, from_ns=one.header.from_ns
            )
        before = one


def _link(before: Checked | None, one: Checked) -> str:
    header = one.header
    if header.seq == 0:
        return "is the first and names one before it" if header.previous_sha256 else ""
    if before is None or before.header.seq != header.seq - 1:
        return ""  # its neighbour was not read
    if header.previous_sha256 != before.sha256:
        return f"does not carry the digest of {before.key}: one of the two was changed"
    if header.from_ns != before.header.to_ns:
        return f"does not begin where {before.key} ends"
    return ""


def _end(life: Life, closed: Close) -> Iterator[Finding]:
    last = life.read[-1] if life.read else None
    if last is None or last.header.seq != closed.segments - 1:
        extra = max(life.seqs, default=-1) - closed.segments + 1
        if extra > 0:
            yield _finding(life, "duplicate", f"{life.name}: {extra} segments more than its close record says")
        return
    if last.sha256 != closed.last_sha256:
        text = f"{life.name}: its close record has not the digest of {last.key}: one of the two was changed"
        yield _finding(life, "broken_chain", text, key=last.key)
    whole = len(life.read) == closed.segments
    charged = sum(one.header.cost_picousd for one in life.read)
    if whole and charged != closed.cost_picousd:
        text = f"{life.name}: its close record says {closed.cost_picousd:,} p$, its segments add up to {charged:,} p$"
        yield _finding(life, "unbalanced", text)


def _clock(life: Life, now_ns: int) -> Iterator[Finding]:
    """Clocks within a life cannot go back (they are monotonic); a life may begin with a wrong one."""
    seen_ns = max([life.boot_ns, *(one.header.to_ns for one in life.read)])
    if seen_ns > now_ns + CLOCK_SLACK_NS:
        text = (
            f"{life.name} is seen at {moment(seen_ns)}, which is yet to come: its machine's clock was wrong, or is here"
        )
        yield _finding(life, "clock_jump", text)
    if life.next_boot_ns is not None and seen_ns > life.next_boot_ns:
        text = f"{life.name} is seen at {moment(seen_ns)}, after the next life of the container began ({moment(life.next_boot_ns)})"
        yield _finding(life, "clock_jump", f"{text}: a clock was set back, or two processes use one container id")
    if life.opened is not None and not life.boot_ns <= life.opened.opened_ns:
        yield _finding(life, "clock_jump", f"{life.name} opened at {moment(life.opened.opened_ns)}, before it began")


def _unattributed(life: Life, opened: Open, books: dict[str, PriceBook], now_ns: int) -> tuple[list[Finding], int]:
    book = books.get(opened.price_book_sha256)
    if book is None:
        return [], 0
    spans: Sequence[unclaimed.Span] = [(one.header.from_ns, one.header.to_ns) for one in life.read]
    has_ended = any(one.is_last for one in life.read)  # killed between its last segment and its close record
    try:
        missing = unclaimed.missing(
            opened,
            book,
            spans,
            closed=life.closed,
            ended=life.ended,
            next_boot_ns=life.next_boot_ns,
            is_over=has_ended,
        )
    except SettingsError as error:
        return [_finding(life, "wrong_charge", f"{life.name}: {error}")], 0
    seen_ns = max([opened.opened_ns, *(to_ns for _, to_ns in spans)])
    is_over = has_ended or any(found is not None for found in (life.closed, life.ended, life.next_boot_ns))
    runs = not is_over and abs(now_ns - seen_ns) <= unclaimed.ALIVE_NS
    ahead = [gap for gap in missing if runs and gap.to_ns == seen_ns]
    told = (
        _unclaimed(life, [gap for gap in missing if gap not in ahead], "in no segment and unattributed"),
        _unclaimed(life, ahead, "billed ahead while it runs, unattributed until its next segments claim them"),
    )
    return [finding for finding in told if finding], sum(gap.cost_picousd for gap in missing)


def _unclaimed(life: Life, gaps: Sequence[unclaimed.Gap], what: str) -> Finding | None:
    cost = sum(gap.cost_picousd for gap in gaps)
    seconds = sum(gap.to_ns - gap.from_ns + gap.beyond_ns for gap in gaps) / 1e9
    text = f"{life.name}: {seconds:,.1f} s of its bill, ${usd(cost)}, are {what}"
    return _finding(life, "unattributed", text, is_fault=False) if cost else None


def chain_lives(lives: Sequence[Life]) -> None:
    """Tell each life when the next in the same container began."""
    ordered = sorted(lives, key=lambda life: (life.container, life.boot_ns))
    for life, after in itertools.pairwise(ordered):
        if life.container == after.container:
            life.next_boot_ns = after.boot_ns

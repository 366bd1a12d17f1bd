"""What is wrong with the ledger that a report rests on: segments that do not balance, are missing, or do not follow each other.

Not a full audit: request rows are not added up, and keys are not compared with contents. A fault means that the report's total
may not be the whole bill; a note does not.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import duckdb
import msgspec

from gateway.accounting.unclaimed import ALIVE_NS
from gateway.audit.lives import CLOCK_SLACK_NS
from gateway.reports.figures import dollars
from gateway.wording import moment

Kind = Literal[
    "unbalanced",
    "unpriced",
    "gap",
    "broken_chain",
    "running",
    "not_closed",
    "never_opened",
    "foreign_object",
    "training_unknown",
    "corrected",
    "clock_jump",
    "no_price_book",
]


class Finding(msgspec.Struct, frozen=True):
    """About the ledger in [from_ns, to_ns]. `ahead_picousd` is what of the period's `unattributed` it explains."""

    kind: Kind
    message: str
    is_fault: bool
    from_ns: int = 0
    to_ns: int = 0
    ahead_picousd: int = 0


_UNBALANCED = """
WITH posted AS (SELECT filename, sku, sum(cost_picousd) AS cost_picousd FROM postings GROUP BY ALL),
     charged AS (SELECT filename, sku, sum(cost_picousd) AS cost_picousd FROM charges GROUP BY ALL),
     stated AS (SELECT filename, sum(cost_picousd) AS cost_picousd FROM charges GROUP BY ALL),
     sides AS (
         SELECT filename, sku, coalesce(p.cost_picousd, 0) AS sum_picousd, coalesce(c.cost_picousd, 0) AS bill_picousd
         FROM posted AS p FULL JOIN charged AS c USING (filename, sku)
         UNION ALL
         SELECT filename, 'the header', s.cost_picousd, coalesce(t.cost_picousd, 0)
         FROM segments AS s LEFT JOIN stated AS t USING (filename)
     )
SELECT container, seq, from_ns, sku, sum_picousd, bill_picousd
FROM sides JOIN segments USING (filename)
WHERE sum_picousd <> bill_picousd
ORDER BY from_ns, container, seq, sku
"""

_UNPRICED = """
SELECT sku, count(DISTINCT (container, boot_ns)), min(from_ns), max(from_ns), max(to_ns)
FROM postings JOIN segments USING (filename)
WHERE account = 'unpriced' AND from_ns >= $since_ns AND from_ns < $until_ns
GROUP BY sku ORDER BY sku
"""

_CORRECTED = """
SELECT count(DISTINCT id), count(DISTINCT bill_sha256), min(bill), sum(cost_picousd), min(hour_ns), max(hour_ns)
FROM corrections WHERE hour_ns >= $since_ns AND hour_ns < $until_ns
"""

_LINKS = """
WITH linked AS (
    SELECT container, boot_ns, seq, from_ns, previous_sha256,
           lag(last_seq) OVER life AS before_seq, lag(to_ns) OVER life AS before_to_ns, lag(sha256) OVER life AS before_sha256
    FROM chain
    WINDOW life AS (PARTITION BY container, boot_ns ORDER BY seq, filename)
)
SELECT container, boot_ns, seq, from_ns, before_seq, before_to_ns, before_sha256 = previous_sha256
FROM linked
WHERE CASE WHEN before_seq IS NULL THEN previous_sha256 <> ''
           ELSE seq <> before_seq + 1 OR from_ns <> before_to_ns OR before_sha256 <> previous_sha256 END
ORDER BY container, boot_ns, seq
"""

_ENDS = """
WITH lives AS (
    SELECT container, boot_ns, sum(segments) AS segments, min(from_ns) AS from_ns, max(to_ns) AS to_ns,
           sum(cost_picousd) AS cost_picousd, arg_max(sha256, last_seq) AS last_sha256
    FROM chain
    GROUP BY ALL
)
SELECT container, coalesce(l.to_ns, c.boot_ns), c.closed_ns, coalesce(l.segments, 0), c.segments
FROM closes AS c LEFT JOIN lives AS l USING (container, boot_ns)
WHERE coalesce(l.segments, 0) <> c.segments
   OR (c.segments > 0 AND (l.last_sha256 <> c.last_sha256 OR l.cost_picousd <> c.cost_picousd))
ORDER BY container, c.boot_ns
"""

_NOT_CLOSED = """
WITH lives AS (
    SELECT container, boot_ns, opened_ns, lead(boot_ns) OVER (PARTITION BY container ORDER BY boot_ns) AS next_boot_ns FROM opens
), unclosed AS (
    SELECT container, boot_ns, opened_ns, next_boot_ns, coalesce(max(s.to_ns), opened_ns) AS seen_ns
    FROM lives ANTI JOIN closes USING (container, boot_ns) LEFT JOIN chain AS s USING (container, boot_ns)
    GROUP BY container, boot_ns, opened_ns, next_boot_ns
), unclaimed AS (
    SELECT container, boot_ns, s.to_ns AS seen_ns, sum(p.cost_picousd) AS cost_picousd
    FROM segments AS s JOIN postings AS p USING (filename)
    WHERE s.seq = -1 AND s.from_ns >= $since_ns AND s.from_ns < $until_ns
    GROUP BY ALL
)
SELECT container, opened_ns, seen_ns, next_boot_ns, ended_ns, evidence, coalesce(cost_picousd, 0)
FROM unclosed LEFT JOIN ended USING (container, boot_ns) LEFT JOIN unclaimed USING (container, boot_ns, seen_ns)
ORDER BY seen_ns, container
"""

_CLOCK = """
WITH seen AS (SELECT container, boot_ns, max(to_ns) AS seen_ns FROM chain GROUP BY ALL),
     lives AS (
         SELECT container, boot_ns, seen_ns, lead(boot_ns) OVER (PARTITION BY container ORDER BY boot_ns) AS next_boot_ns
         FROM opens LEFT JOIN seen USING (container, boot_ns)
     )
SELECT container, boot_ns, seen_ns, next_boot_ns FROM lives
WHERE seen_ns > next_boot_ns OR ($now_ns > 0 AND seen_ns > $now_ns + $slack_ns)
ORDER BY ALL
"""

_NO_BOOK = """
WITH held AS (
    SELECT container, boot_ns, from_ns, to_ns,
           lag(to_ns, 1, boot_ns) OVER (PARTITION BY container, boot_ns ORDER BY seq) AS before_ns
    FROM chain
), seen AS (SELECT container, boot_ns, max(to_ns) AS seen_ns FROM held GROUP BY ALL), lives AS (
    SELECT container, o.boot_ns, price_book_sha256, coalesce(seen_ns, o.boot_ns) AS seen_ns,
           lead(o.boot_ns) OVER (PARTITION BY container ORDER BY o.boot_ns) AS next_ns,
           coalesce(closed_ns, ended_ns, next_ns, seen_ns, opened_ns) AS end_ns
    FROM opens AS o LEFT JOIN seen USING (container, boot_ns) LEFT JOIN closes USING (container, boot_ns)
         LEFT JOIN ended USING (container, boot_ns)
), gaps AS (
    SELECT container, boot_ns, before_ns AS from_ns, from_ns AS to_ns FROM held
    UNION ALL SELECT container, boot_ns, seen_ns, end_ns FROM lives
)
SELECT container, boot_ns, price_book_sha256, min(from_ns), max(to_ns), sum(to_ns - from_ns)
FROM gaps JOIN lives USING (container, boot_ns) ANTI JOIN books ON price_book_sha256 = books.sha256
WHERE to_ns > from_ns AND from_ns < $until_ns AND to_ns > $since_ns
GROUP BY ALL ORDER BY ALL
"""

_NEVER_OPENED = """
SELECT container, min(s.from_ns), max(s.to_ns)
FROM chain AS s ANTI JOIN opens USING (container, boot_ns)
GROUP BY container, s.boot_ns
ORDER BY ALL
"""


def find(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int, now_ns: int = 0) -> tuple[Finding, ...]:
    """All findings that touch the period, faults first. `now_ns` is when the ledger was listed; 0: long after all of it."""
    found = [*_unbalanced(connection), *_links(connection), *_ends(connection)]
    found += [*_not_closed(connection, since_ns, until_ns, now_ns), *_never_opened(connection)]
    found += [*_no_book(connection, since_ns, until_ns), *_clock(connection, now_ns)]
    found = [*_unpriced(connection, since_ns, until_ns), *found, *_corrected(connection, since_ns, until_ns)]
    return tuple(finding for finding in found if finding.from_ns < until_ns and finding.to_ns >= since_ns)


def _unbalanced(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    return [
        Finding(
            "unbalanced",
            f"segment {seq} of container {container} ({moment(from_ns)}): {sku} adds up to {have:,} p$, charged are {bill:,} p$",
            True,
            from_ns,
            from_ns,  # like its postings, it belongs to the period it begins in
        )
        for container, seq, from_ns, sku, have, bill in connection.execute(_UNBALANCED).fetchall()
    ]


def _unpriced(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> list[Finding]:
    """A bill that is not known must not look like a small one."""
    period = {"since_ns": since_ns, "until_ns": until_ns}
    return [
        Finding(
            "unpriced",
            f"UNPRICED: no price was known for {sku}, by which {containers:,} containers were billed from {moment(from_ns)} to "
            f"{moment(to_ns)}; what that cost is in no sum here (steelyard prices update FILE prices containers that start later)",
            True,
            from_ns,
            last_ns,
        )
        for sku, containers, from_ns, last_ns, to_ns in connection.execute(_UNPRICED, period).fetchall()
    ]


def _corrected(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> list[Finding]:
    """That the bill is not the ledger's alone, and by how much."""
    period = {"since_ns": since_ns, "until_ns": until_ns}
    [(count, bills, name, cost, from_ns, to_ns)] = connection.execute(_CORRECTED, period).fetchall()
    if not count:
        return []
    whose = f"bill {name}" if bills == 1 else f"{bills:,} bills, such as {name}"
    text = f"{count:,} correction{'s' * (count > 1)} of {dollars(cost)} by {whose} are in these sums (costs reconcile --post)"
    return [Finding("corrected", text, False, from_ns, to_ns)]


def _links(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    return [_link(*row) for row in connection.execute(_LINKS).fetchall()]


def _link(
    container: str, boot_ns: int, seq: int, from_ns: int, before: int | None, before_to_ns: int, is_chained: bool
) -> Finding:
    """A segment that does not follow the one before it, or is the first there is and not the first there was."""
    name = f"container {container} at {moment(from_ns)}"
    if before is None:
        return Finding("gap", f"{name}: segments before {seq} are missing", True, boot_ns, from_ns)
    if seq > before + 1:
        return Finding("gap", f"{name}: segments {before + 1} to {seq - 1} are missing", True, before_to_ns, from_ns)
    if seq <= before:
        return Finding("broken_chain", f"{name}: there are two segments {seq}", True, from_ns, from_ns)
    if not is_chained:
        text = f"{name}: segment {seq} does not carry the digest of segment {before}"
        return Finding("broken_chain", text, True, from_ns, from_ns)
    text = f"{name}: segment {seq} does not begin where segment {before} ends"
    return Finding("gap", text, True, min(before_to_ns, from_ns), from_ns)


def _ends(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    return [_end(*row) for row in connection.execute(_ENDS).fetchall()]


def _end(container: str, seen_ns: int, closed_ns: int, segments: int, promised: int) -> Finding:
    """A close record that does not agree with the container's segments."""
    span = min(seen_ns, closed_ns), closed_ns
    if segments != promised:
        text = f"container {container}: its close record promises {promised} segments, the ledger has {segments}"
        return Finding("gap", text, True, *span)
    text = f"container {container}: its close record has another digest or cost than its segments"
    return Finding("broken_chain", text, True, *span)


def ahead_picousd(found: Iterable[Finding]) -> int:
    """The part of `unattributed` that is billed ahead for containers that still run: nothing went wrong with it."""
    return sum(finding.ahead_picousd for finding in found)


def _not_closed(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int, now_ns: int) -> Iterator[Finding]:
    period = {"since_ns": since_ns, "until_ns": until_ns}
    for container, opened_ns, seen_ns, next_ns, ended_ns, evidence, owed in connection.execute(
        _NOT_CLOSED, period
    ).fetchall():
        name, seen, to_ns = f"container {container}", f"last seen {moment(seen_ns)}", max(seen_ns, ended_ns or 0)
        if ended_ns is not None:
            text = f"{name} was killed, {seen}; its bill ended {moment(ended_ns)} ({evidence})"
        elif next_ns is not None:
            text = f"{name} was killed, {seen}, and started again {moment(next_ns)}"
        elif abs(now_ns - seen_ns) > ALIVE_NS:
            text = f"{name} has no close record: running or killed, {seen}"
        else:
            ahead = f"; {dollars(owed)} is billed ahead, unattributed until its next segments claim it" if owed else ""
            yield Finding("running", f"{name} is running, {seen}{ahead}", False, opened_ns, seen_ns, owed)
            continue
        yield Finding("not_closed", text, False, opened_ns, to_ns)


def _no_book(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int) -> Iterator[Finding]:
    """What no segment claims has no price then, and a bill without it must not look whole."""
    period = {"since_ns": since_ns, "until_ns": until_ns}
    for container, boot_ns, sha256, from_ns, to_ns, missing_ns in connection.execute(_NO_BOOK, period).fetchall():
        text = (
            f"container {container} (boot {moment(boot_ns)}): {missing_ns / 1e9:,.1f} s of its life are in no segment, and what "
            f"they cost is in no sum here, for its price book is missing or was edited: put prices/sha256/{sha256} back"
        )
        yield Finding("no_price_book", text, True, from_ns, to_ns)


def _clock(connection: duckdb.DuckDBPyConnection, now_ns: int) -> Iterator[Finding]:
    """Nothing is missing, but what such a life cost stands in hours in which it did not live."""
    limits = {"now_ns": now_ns, "slack_ns": CLOCK_SLACK_NS}
    for container, boot_ns, seen_ns, next_ns in connection.execute(_CLOCK, limits).fetchall():
        text = f"container {container} is seen at {moment(seen_ns)}"
        if next_ns is not None and seen_ns > next_ns:
            text += f", after its next life began ({moment(next_ns)}): a clock was set back, or two processes use one container id"
        else:
            text += ", which is yet to come: its machine's clock was wrong, or is here"
        yield Finding("clock_jump", text, False, boot_ns, seen_ns)


def _never_opened(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    return [
        Finding("never_opened", f"container {container} has segments but no open record", False, from_ns, to_ns)
        for container, from_ns, to_ns in connection.execute(_NEVER_OPENED).fetchall()
    ]

"""How the lives of a report's containers ended, or go on: without a close record, without a price book, by a wrong clock.

By SQL over the tables of an open ledger; `gateway.reports.findings` calls it.
"""

from collections.abc import Iterator

import duckdb

from gateway.accounting.unclaimed import ALIVE_NS
from gateway.audit.lives import CLOCK_SLACK_NS
from gateway.reports.figures import dollars
from gateway.reports.finding import Finding
from gateway.wording import moment

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


def find(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int, now_ns: int) -> Iterator[Finding]:
    """Those that may touch the period; `now_ns` is when the ledger was listed; 0: long after all of it."""
    yield from _not_closed(connection, since_ns, until_ns, now_ns)
    yield from _no_book(connection, since_ns, until_ns)
    yield from _clock(connection, now_ns)


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

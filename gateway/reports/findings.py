"""What is wrong with the ledger that a report rests on: segments that do not balance, are missing, or do not follow each other.

Not a full audit: request rows are not added up, and keys are not compared with contents. A fault means that the report's total
may not be the whole bill; a note does not. Here is what is wrong with the money; `chainfindings` and `lifefindings` have the rest.
"""

import duckdb

from gateway.reports import chainfindings, lifefindings
from gateway.reports.figures import dollars
from gateway.reports.finding import Finding
from gateway.wording import moment

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


def find(connection: duckdb.DuckDBPyConnection, since_ns: int, until_ns: int, now_ns: int = 0) -> tuple[Finding, ...]:
    """All findings that touch the period, faults first. `now_ns` is when the ledger was listed; 0: long after all of it."""
    found = [*_unpriced(connection, since_ns, until_ns), *_unbalanced(connection), *chainfindings.find(connection)]
    found += lifefindings.find(connection, since_ns, until_ns, now_ns)
    found += _corrected(connection, since_ns, until_ns)
    unread = _unread(connection)  # of no time that was asked for
    return (*(one for one in found if one.from_ns < until_ns and one.to_ns >= since_ns), *unread)


def _unread(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    [(count, key)] = connection.execute("SELECT count(*), min(key) FROM unread").fetchall()
    if not count:
        return []
    which = f"segment {key}" if count == 1 else f"{count:,} segments, such as {key},"
    text = f"{which} cannot be read (steelyard ledger verify) and left out: not of this period, which is not compared with it"
    return [Finding("unreadable_segment", text, False)]


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

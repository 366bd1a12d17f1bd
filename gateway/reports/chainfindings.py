"""Segments of a report's ledger against each other and their containers' records: missing, doubled, or not following one another.

By SQL over the tables of an open ledger; `gateway.reports.findings` calls it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import duckdb

from gateway.reports.finding import Finding
from gateway.wording import moment

Life = tuple[str, int]

_LINKS = """
WITH linked AS (
    SELECT container, boot_ns, seq, from_ns, previous_sha256,
           lag(last_seq) OVER life AS before_seq, lag(to_ns) OVER life AS before_to_ns, lag(sha256) OVER life AS before_sha256
    FROM chain ANTI JOIN unread USING (container, boot_ns)
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
SELECT container, c.boot_ns, coalesce(l.to_ns, c.boot_ns), c.closed_ns, coalesce(l.segments, 0), c.segments
FROM closes AS c ANTI JOIN unread USING (container, boot_ns) LEFT JOIN lives AS l USING (container, boot_ns)
WHERE coalesce(l.segments, 0) <> c.segments
   OR (c.segments > 0 AND (l.last_sha256 <> c.last_sha256 OR l.cost_picousd <> c.cost_picousd))
ORDER BY container, c.boot_ns
"""

_NEVER_OPENED = """
SELECT container, min(s.from_ns), max(s.to_ns)
FROM chain AS s ANTI JOIN opens USING (container, boot_ns)
GROUP BY container, s.boot_ns
ORDER BY ALL
"""


def find(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    """Of all times. Where a segment was left unread (`tables.opened`) its life's chain is not judged."""
    links = connection.execute(_LINKS).fetchall()
    lost: Counter[Life] = Counter()
    for container, boot_ns, seq, _, before, *_ in links:
        lost[container, boot_ns] += max(0, seq - (-1 if before is None else before) - 1)
    return [*(_link(*row) for row in links), *_ends(connection, lost), *_never_opened(connection)]


def _link(
    container: str, boot_ns: int, seq: int, from_ns: int, before: int | None, before_to_ns: int, is_chained: bool
) -> Finding:
    """A segment that does not follow the one before it, or is the first there is and not the first there was."""
    name = f"container {container} at {moment(from_ns)}"
    if before is None:
        if seq == 0:
            return Finding(
                "broken_chain", f"{name}: segment 0 carries the digest of one before it", True, from_ns, from_ns
            )
        return Finding("gap", f"{name}: {_missing(0, seq - 1)}", True, boot_ns, from_ns)
    if seq > before + 1:
        return Finding("gap", f"{name}: {_missing(before + 1, seq - 1)}", True, before_to_ns, from_ns)
    if seq <= before:
        return Finding("broken_chain", f"{name}: there are two segments {seq}", True, from_ns, from_ns)
    if not is_chained:
        text = f"{name}: segment {seq} does not carry the digest of segment {before}"
        return Finding("broken_chain", text, True, from_ns, from_ns)
    text = f"{name}: segment {seq} does not begin where segment {before} ends"
    return Finding("gap", text, True, min(before_to_ns, from_ns), from_ns)


def _missing(first: int, last: int) -> str:
    return f"segment {first} is missing" if first == last else f"segments {first} to {last} are missing"


def _ends(connection: duckdb.DuckDBPyConnection, lost: Mapping[Life, int]) -> Iterator[Finding]:
    """`lost` are the segments that gaps in the chain miss already: a close record that misses the same says nothing new."""
    for container, boot_ns, seen_ns, closed_ns, segments, promised in connection.execute(_ENDS).fetchall():
        if segments == promised or promised - segments != lost.get((container, boot_ns), 0):
            yield _end(container, seen_ns, closed_ns, segments, promised)


def _end(container: str, seen_ns: int, closed_ns: int, segments: int, promised: int) -> Finding:
    """A close record that does not agree with the container's segments."""
    span = min(seen_ns, closed_ns), closed_ns
    if segments != promised:
        text = f"container {container}: its close record promises {promised} segments, the ledger has {segments}"
        return Finding("gap", text, True, *span)
    text = f"container {container}: its close record has another digest or cost than its segments"
    return Finding("broken_chain", text, True, *span)


def _never_opened(connection: duckdb.DuckDBPyConnection) -> list[Finding]:
    return [
        Finding("never_opened", f"container {container} has segments but no open record", False, from_ns, to_ns)
        for container, from_ns, to_ns in connection.execute(_NEVER_OPENED).fetchall()
    ]

"""As of when a report was made, and how far the ledger was whole then: what has not come yet must not look like a small bill.

A container writes its segments in order, so the newest one of each that may still write says how far its part is known. Reports
carry it and show it; whether something is missing before that is `gateway.reports.findings`' to say.
"""

import duckdb
import msgspec

from gateway.reports import figures
from gateway.reports.listing import SILENT_NS
from gateway.wording import moment


class Growing(msgspec.Struct, frozen=True):
    """A container that may write more. `newest_ns` is the end of its newest segment; when it opened, as long as it has none."""

    container: str
    boot_ns: int
    newest_ns: int


class AsOf(msgspec.Struct, frozen=True):
    """`listed_ns` is when the store was asked what there is. The ledger is whole up to `complete_ns`, for the clock too.

    `growing` are the lives without a close record, an end or a later life that wrote within two days, the furthest behind first.
    One of them may have been killed: nobody knows then whether its last segments wait on its disk.
    """

    listed_ns: int
    complete_ns: int
    growing: tuple[Growing, ...]


_GROWING = """
WITH lives AS (
    SELECT container, boot_ns, opened_ns, lead(boot_ns) OVER (PARTITION BY container ORDER BY boot_ns) AS next_boot_ns FROM opens
)
SELECT container, boot_ns, coalesce(max(s.to_ns), min(opened_ns)) AS newest_ns
FROM lives ANTI JOIN closes USING (container, boot_ns) ANTI JOIN ended USING (container, boot_ns)
     LEFT JOIN chain AS s USING (container, boot_ns)
WHERE next_boot_ns IS NULL
GROUP BY container, boot_ns HAVING newest_ns > $since_ns
ORDER BY newest_ns, container
"""


def read(connection: duckdb.DuckDBPyConnection, listed_ns: int) -> AsOf | None:
    """Of an open ledger; None where nobody listed it (0)."""
    if not listed_ns:
        return None
    rows = connection.execute(_GROWING, {"since_ns": listed_ns - SILENT_NS}).fetchall()
    growing = tuple(Growing(*row) for row in rows)
    return AsOf(listed_ns, min([listed_ns, *(one.newest_ns for one in growing)]), growing)


def sentence(as_of: AsOf | None, until_ns: int | None) -> str:
    """`as of 2026-11-05T14:30:00Z, complete`, or how far: of a report that ends at `until_ns`. Empty where nobody listed."""
    if as_of is None:
        return ""
    listed = f"as of {moment(as_of.listed_ns)}"
    if not as_of.growing or (until_ns is not None and until_ns <= as_of.complete_ns):
        return f"{listed}, complete"
    last, count = figures.printable(as_of.growing[0].container), len(as_of.growing)
    who = (
        f"{count:,} containers may write more, the furthest behind is {last}"
        if count > 1
        else f"container {last} may write more"
    )
    return f"{listed}, complete until {moment(as_of.complete_ns)}: {who}"

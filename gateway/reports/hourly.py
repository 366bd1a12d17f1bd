"""How many requests of one model came in each hour, as the ledger has them. Whoever plans capacity asks (`steelyard advise`)."""

import asyncio
from pathlib import Path

from gateway.contract.words import HOUR_NS
from gateway.objectstore.protocol import ObjectStore
from gateway.reports import tables
from gateway.reports.sync import LocalLedger, sync

_HOURS = """
SELECT s.from_ns // $hour_ns AS hour, coalesce(sum(p.requests) FILTER (p.account = 'infer' AND p.model = $model), 0)
FROM segments AS s LEFT JOIN postings AS p USING (filename)
WHERE s.seq > -2
GROUP BY ALL ORDER BY hour
"""


async def requests(store: ObjectStore, folder: Path, model: str) -> dict[int, int]:
    """By hour since the epoch; 0 for hours in which a gateway ran and nobody asked it for this model. `folder`: as of `costs.read`.

    Raises `StoreUnavailable`, `ManifestInvalid` for a ledger file that cannot be read.
    """
    local = await sync(store, folder)
    return await asyncio.to_thread(_compute, local, model)


def _compute(local: LocalLedger, model: str) -> dict[int, int]:
    with tables.opened(local) as connection:
        rows = connection.execute(_HOURS, {"hour_ns": HOUR_NS, "model": model}).fetchall()
    return {int(hour): int(count) for hour, count in rows}

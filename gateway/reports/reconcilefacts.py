"""What the ledger holds against a bill: charges by container, sku and hour, who had traffic there, and earlier corrections."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import duckdb
import msgspec

from gateway.contract.corrections import Correction, Posted

HOUR_NS = 3600 * 10**9

User = tuple[str, int, str, str]
"""Model, version, tenant, outcome."""
PLATFORM: User = ("", 0, "", "")


class Held(msgspec.Struct, frozen=True):
    """One sku of one container in one hour. `quantity` in `unit`, `length_ns` how long it was billed for."""

    hour_ns: int
    sku: str
    unit: str
    cost_picousd: int
    quantity: int
    length_ns: int


class Earlier(msgspec.Struct, frozen=True):
    """A correction, with the posting that it came by."""

    generation: int
    bill_sha256: str
    line: Correction


class Facts(msgspec.Struct, frozen=True):
    """`traffic` is the direct cost of requests, by container and hour. `postings` in the order of their generations."""

    held: Mapping[str, Sequence[Held]]
    traffic: Mapping[tuple[str, int], Mapping[User, int]]
    postings: tuple[Posted, ...] = ()

    def earlier(self) -> list[Earlier]:
        """All corrections so far."""
        return [
            Earlier(posted.generation, posted.bill_sha256, line)
            for posted in self.postings
            for line in posted.corrections
        ]

    def generation_of(self, bill_sha256: str) -> int:
        """Of the last posting of this bill, 0 when it was never posted."""
        return max((one.generation for one in self.postings if one.bill_sha256 == bill_sha256), default=0)


_HELD = """
SELECT container, s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, sku, min(unit), sum(c.cost_picousd),
       sum(c.quantity + c.beyond),
       sum(CASE WHEN c.quantity = 0 THEN 0 ELSE (to_ns - from_ns) * (c.quantity + c.beyond) // c.quantity END)
FROM charges AS c JOIN segments AS s USING (filename)
WHERE s.seq > -2
GROUP BY ALL ORDER BY ALL
"""

_TRAFFIC = """
SELECT container, s.from_ns // 3600000000000 * 3600000000000 AS hour_ns, model, version, tenant, outcome, sum(p.cost_picousd)
FROM postings AS p JOIN segments AS s USING (filename)
WHERE account = 'infer' AND model <> ''
GROUP BY ALL HAVING sum(p.cost_picousd) > 0 ORDER BY ALL
"""


def read(connection: duckdb.DuckDBPyConnection, postings: Sequence[Posted]) -> Facts:
    """Of all times: a container that is not in the bill's time is known all the same. Blocking."""
    held: dict[str, list[Held]] = defaultdict(list)
    for container, *row in connection.execute(_HELD).fetchall():
        held[container].append(Held(*row))
    traffic: dict[tuple[str, int], dict[User, int]] = defaultdict(dict)
    for container, hour_ns, *user, cost in connection.execute(_TRAFFIC).fetchall():
        traffic[container, hour_ns][tuple(user)] = cost
    return Facts(held, traffic, tuple(postings))

"""What the ledger holds against a bill: charges by container, sku and hour, who had traffic there, and earlier corrections."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeVar

import duckdb
import msgspec

from gateway.contract.corrections import Entry, Posted, Reason
from gateway.contract.words import HOUR_NS

T = TypeVar("T")
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
    """An entry of a correction, with the posting that it came by."""

    generation: int
    bill_sha256: str
    reason: Reason
    entry: Entry


ByHour = Mapping[int, Sequence[T]]


class Facts(msgspec.Struct, frozen=True):
    """`held` by container and hour, `traffic` (direct cost of requests) by both. `postings` in the order of their generations.

    `containers` are those whose resource on the bill is known, by its name there; not one that several share.
    """

    held: Mapping[str, ByHour[Held]]
    traffic: Mapping[tuple[str, int], Mapping[User, int]]
    postings: tuple[Posted, ...] = ()
    containers: Mapping[str, str] = {}

    def earlier(self) -> dict[str, dict[int, list[Earlier]]]:
        """All corrections so far, by hour, under the names of their resource and their container."""
        found: dict[str, dict[int, list[Earlier]]] = defaultdict(lambda: defaultdict(list))
        for posted in self.postings:
            for line in posted.corrections:
                for entry in line.entries:
                    one = Earlier(posted.generation, posted.bill_sha256, line.reason, entry)
                    for name in {line.resource, line.container} - {""}:
                        found[name][entry.hour_ns].append(one)
        return found

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


_RESOURCES = """
SELECT resource, min(container) FROM opens WHERE resource <> '' GROUP BY resource HAVING count(DISTINCT container) = 1
"""


def within(by_hour: ByHour[T], from_ns: int, to_ns: int) -> list[T]:
    """Of the hours that begin in [from_ns, to_ns), which are whole ones."""
    return [one for hour_ns in range(from_ns, to_ns, HOUR_NS) for one in by_hour.get(hour_ns, ())]


def read(connection: duckdb.DuckDBPyConnection, postings: Sequence[Posted]) -> Facts:
    """Of all times: a container that is not in the bill's time is known all the same. Blocking."""
    held: dict[str, dict[int, list[Held]]] = defaultdict(lambda: defaultdict(list))
    for container, *row in connection.execute(_HELD).fetchall():
        one = Held(*row)
        held[container][one.hour_ns].append(one)
    traffic: dict[tuple[str, int], dict[User, int]] = defaultdict(dict)
    for container, hour_ns, *user, cost in connection.execute(_TRAFFIC).fetchall():
        traffic[container, hour_ns][tuple(user)] = cost
    return Facts(held, traffic, tuple(postings), dict(connection.execute(_RESOURCES).fetchall()))

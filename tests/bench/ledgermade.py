"""A compacted ledger of as many requests as one likes: synthetic lines, through compaction's own queries and writer.

One container that answers evenly for `hours`, with a segment every ten seconds: four model versions, eight tenants, some failures,
memory of each version, overhead, idle time. Charges are what its price book makes of them, and every sum is exact. The segments
are not written: this is a ledger whose segments have expired.
"""

import hashlib
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from gateway.accounting.tariff import Tariff, tariff
from gateway.contract import codec, layout, prices
from gateway.contract.compacted import TABLES, File, Input, Manifest, Plan
from gateway.contract.ledger import Close, Open, ProvisionedSku
from gateway.reports import hourfiles

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
SEGMENT_NS = 10 * SECOND_NS  # the gateway's own default
PER_HOUR = HOUR_NS // SEGMENT_NS
BOOT_NS = 1_790_812_800 * SECOND_NS  # 2026-10-01T00:00:00Z: all of a month is past
CONTAINER = "bench-0"
VCPU = ProvisionedSku("fargate-x86/vcpu", "milli-vcpu-ns", 2000)
MEMORY = ProvisionedSku("fargate-x86/memory", "byte-ns", 4 << 30)

_SEGMENTS = """
CREATE OR REPLACE TEMP TABLE made AS
SELECT $first + i AS seq, $boot + ($first + i) * $segment_ns AS from_ns, vcpu_picousd, memory_picousd
FROM (SELECT unnest(range(len($vcpu::BIGINT[]))) AS i, unnest($vcpu::BIGINT[]) AS vcpu_picousd,
             unnest($memory::BIGINT[]) AS memory_picousd);
"""

_REQUESTS = """
CREATE OR REPLACE TEMP TABLE requests AS
SELECT seq AS filename, printf('%016x-%d', $boot, seq * $per + n) AS id, from_ns + (n * $segment_ns) // $per AS at_ns,
       ['flights', 'digits', 'churn', 'churn'][1 + k % 4] AS model, [3, 1, 7, 8][1 + k % 4] AS version,
       printf('team-%d', k // 4 % 8) AS tenant, 'rows' AS door, 'int8' AS variant,
       CASE WHEN k % 97 = 0 THEN 'invalid' WHEN k % 211 = 0 THEN 'timed_out' ELSE 'ok' END AS outcome,
       1 + k % 3 AS rows, 250000 + k % 300000 AS cpu_ns, (250000 + k % 300000) * 11 // 1000 AS cost_picousd,
       300 + k % 50 AS request_bytes, 21 AS response_bytes, k % 40000 AS queue_ns, 200000 + k % 250000 AS run_ns, 1 AS batch_rows
FROM (SELECT seq, from_ns, n, (hash(seq, n) % 4294967296)::BIGINT AS k FROM made, range($per) AS numbers(n));
"""

_LINES = """
CREATE OR REPLACE TEMP TABLE infer AS
SELECT filename, model, version, tenant, outcome, sum(cost_picousd) AS cost_picousd, 1000 * sum(cpu_ns) AS quantity,
       count(*) AS requests, sum(rows) AS rows
FROM requests GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE charges AS
SELECT seq AS filename, $vcpu_sku AS sku, 'milli-vcpu-ns' AS unit, 2000 * $segment_ns AS quantity,
       vcpu_picousd AS cost_picousd, 0 AS beyond, 0 AS since
FROM made
UNION ALL BY NAME
SELECT seq AS filename, $memory_sku AS sku, 'byte-ns' AS unit, 4294967296::HUGEINT * $segment_ns AS quantity,
       memory_picousd AS cost_picousd, 0 AS beyond, 0 AS since FROM made;

CREATE OR REPLACE TEMP TABLE postings AS
WITH held AS (
    SELECT seq AS filename, 'resident' AS account, $memory_sku AS sku,
           unnest(['flights', 'digits', 'churn', 'churn']) AS model, unnest([3, 1, 7, 8]) AS version,
           memory_picousd // 10 AS cost_picousd, 400000000::HUGEINT * $segment_ns AS quantity FROM made
), owned AS (
    SELECT filename, 'infer' AS account, $vcpu_sku AS sku, * EXCLUDE (filename) FROM infer
    UNION ALL BY NAME FROM held
    UNION ALL BY NAME
    SELECT seq AS filename, unnest(['overhead', 'ledger']) AS account, $vcpu_sku AS sku, unnest([50000000, 900000]) AS cost_picousd,
           unnest([1000000000000, 20000000000]) AS quantity FROM made
), lines AS (
    FROM owned UNION ALL BY NAME
    SELECT c.filename, CASE WHEN c.sku = $vcpu_sku THEN 'idle_cpu' ELSE 'idle_mem' END AS account, c.sku AS sku,
           c.cost_picousd - o.cost_picousd AS cost_picousd, c.quantity // 2 AS quantity
    FROM charges AS c JOIN (
        SELECT filename, sku, sum(cost_picousd) AS cost_picousd FROM owned GROUP BY ALL
    ) AS o USING (filename, sku)
)
SELECT filename, account, sku, cost_picousd, quantity, coalesce(model, '') AS model, coalesce(version, 0) AS version,
       coalesce(tenant, '') AS tenant, coalesce(outcome, '') AS outcome, coalesce(requests, 0) AS requests,
       coalesce(rows, 0) AS rows, NULL::VARCHAR AS phases
FROM lines;

CREATE OR REPLACE TEMP TABLE segments AS
SELECT seq AS filename, $container AS container, $boot AS boot_ns, seq, sha256(seq::VARCHAR) AS sha256,
       CASE WHEN seq = 0 THEN '' ELSE sha256((seq - 1)::VARCHAR) END AS previous_sha256, from_ns, from_ns + $segment_ns AS to_ns,
       $book AS price_book_sha256, vcpu_picousd + memory_picousd AS cost_picousd, $per AS requests, 0 AS collapsed
FROM made;
"""


def make(root: Path, hours: int, per_segment: int, jobs: int) -> None:
    """Write it below `root`."""
    price_book = prices.load()
    _put(root, layout.price_book(price_book.sha256), price_book.data)
    opened = Open(CONTAINER, BOOT_NS, BOOT_NS, "fargate-x86", (VCPU, MEMORY), price_book.sha256, "bench")
    _put(root, layout.container_open(CONTAINER, BOOT_NS), codec.encode(opened))
    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(_hour, [root] * hours, range(hours), [per_segment] * hours))
    bill = sum(one.billed_picousd(hours * HOUR_NS) for one in _tariffs())
    last = hashlib.sha256(str(hours * PER_HOUR - 1).encode()).hexdigest()
    closed = Close(CONTAINER, BOOT_NS, BOOT_NS + hours * HOUR_NS, hours * PER_HOUR, last, bill)
    _put(root, layout.container_close(CONTAINER, BOOT_NS), codec.encode(closed))


def _tariffs() -> list[Tariff]:
    return [tariff(prices.load(), sku) for sku in (VCPU, MEMORY)]


def _hour(root: Path, hour: int, per_segment: int) -> None:
    at = datetime.fromtimestamp((BOOT_NS + hour * HOUR_NS) // SECOND_NS, UTC)
    dt, hr = f"{at:%Y-%m-%d}", f"{at:%H}"
    with tempfile.TemporaryDirectory(dir=root) as scratch, duckdb.connect() as connection:
        cost = _lines(connection, hour, per_segment)
        files = []
        for table, (path, rows) in hourfiles.copy(connection, Path(scratch)).items():
            key = layout.compacted(table, dt, hr)
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            path.rename(root / key)
            with (root / key).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files.append(File(table, key, sha256, (root / key).stat().st_size, rows))
    assert len(files) == len(TABLES)
    inputs = tuple(_input(hour * PER_HOUR + number) for number in range(PER_HOUR))
    _put(root, layout.compacted("plans", dt, hr), codec.encode(Plan(dt, hr, 0, inputs)))
    manifest = Manifest(dt, hr, 0, inputs, tuple(files), cost, per_segment * PER_HOUR)
    _put(root, layout.compacted("manifests", dt, hr), codec.encode(manifest))


def _lines(connection: duckdb.DuckDBPyConnection, hour: int, per_segment: int) -> int:
    """The hour's tables; what it charges."""
    first = hour * PER_HOUR
    ages = [seq * SEGMENT_NS for seq in range(first, first + PER_HOUR)]
    vcpu, memory = ([one.charge(age, age + SEGMENT_NS).cost_picousd for age in ages] for one in _tariffs())
    given: dict[str, Any] = {  # Any: DuckDB's parameters
        "first": first,
        "boot": BOOT_NS,
        "segment_ns": SEGMENT_NS,
        "vcpu": vcpu,
        "memory": memory,
        "per": per_segment,
        "vcpu_sku": VCPU.sku,
        "memory_sku": MEMORY.sku,
        "container": CONTAINER,
        "book": prices.load().sha256,
    }
    connection.execute("SET threads = 1")
    for statement in ";".join((_SEGMENTS, _REQUESTS, _LINES)).split(";"):
        if statement.strip():
            used = {name: value for name, value in given.items() if re.search(rf"\${name}\b", statement)}
            connection.execute(statement, used)
    return sum(vcpu) + sum(memory)


def _input(seq: int) -> Input:
    key = layout.segment(from_ns=BOOT_NS + seq * SEGMENT_NS, container=CONTAINER, boot_ns=BOOT_NS, seq=seq)
    return Input(key, hashlib.sha256(str(seq).encode()).hexdigest())


def _put(root: Path, key: str, body: bytes) -> None:
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(body)


def total(root: Path) -> tuple[int, int]:
    """Requests and pico-dollars that the manifests state."""
    found = [
        msgspec.json.decode(path.read_bytes(), type=Manifest)
        for path in root.glob(f"{layout.compacted('manifests')}*/*/*.json")
    ]
    return sum(one.requests for one in found), sum(one.cost_picousd for one in found)

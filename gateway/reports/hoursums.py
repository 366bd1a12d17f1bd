"""The SQL of an hour's sums, and how a report reads them back: `hourfiles` writes with it, `tables` reads.

Segments are summed by stretches: a life's unbroken run of segments within the hour, each chained to the one before. A stretch has
all that a segment's header has, so whatever is true of one is true of the other: its first number and its last, the digest that
the next must carry, begin and end, and charges that its postings add up to. A single segment is the shortest stretch.
"""

STRETCH = "n.container::VARCHAR AS container, n.boot_ns::BIGINT AS boot_ns, n.first_seq::BIGINT AS seq"

QUERY = f"""
WITH followed AS (
    SELECT *, coalesce(seq = lag(seq) OVER life + 1 AND from_ns = lag(to_ns) OVER life
                       AND previous_sha256 = lag(sha256) OVER life
                       AND price_book_sha256 = lag(price_book_sha256) OVER life, false) AS is_followed
    FROM segments
    WINDOW life AS (PARTITION BY container, boot_ns ORDER BY seq, filename)
), counted AS (
    SELECT *, count(*) FILTER (NOT is_followed) OVER (PARTITION BY container, boot_ns ORDER BY seq, filename) AS stretch
    FROM followed
), numbered AS (
    SELECT *, min(seq) OVER (PARTITION BY container, boot_ns, stretch) AS first_seq FROM counted
)
SELECT 'segment' AS type, {STRETCH}, max(seq)::BIGINT AS last_seq, count(*)::BIGINT AS segments,
       arg_max(sha256, seq)::VARCHAR AS sha256, arg_min(previous_sha256, seq)::VARCHAR AS previous_sha256,
       min(from_ns)::BIGINT AS from_ns, max(to_ns)::BIGINT AS to_ns, price_book_sha256::VARCHAR AS price_book_sha256,
       sum(collapsed)::DECIMAL(38, 0) AS collapsed, NULL::VARCHAR AS account, NULL::VARCHAR AS sku, NULL::VARCHAR AS unit,
       NULL::VARCHAR AS model, NULL::BIGINT AS version, NULL::VARCHAR AS tenant, NULL::VARCHAR AS outcome,
       sum(cost_picousd)::DECIMAL(38, 0) AS cost_picousd, NULL::DECIMAL(38, 0) AS quantity, NULL::DECIMAL(38, 0) AS beyond,
       NULL::BIGINT AS since,
       sum(requests)::DECIMAL(38, 0) AS requests, NULL::DECIMAL(38, 0) AS "rows", NULL::BIGINT AS entries
FROM numbered AS n GROUP BY n.container, n.boot_ns, n.first_seq, price_book_sha256
UNION ALL BY NAME
SELECT 'charge' AS type, {STRETCH}, c.sku::VARCHAR AS sku, c.unit::VARCHAR AS unit,
       sum(c.cost_picousd)::DECIMAL(38, 0) AS cost_picousd, sum(c.quantity)::DECIMAL(38, 0) AS quantity,
       sum(c.beyond)::DECIMAL(38, 0) AS beyond, min(c.since)::BIGINT AS since, count(*)::BIGINT AS entries
FROM charges AS c JOIN numbered AS n USING (filename) GROUP BY n.container, n.boot_ns, n.first_seq, c.sku, c.unit
UNION ALL BY NAME
SELECT 'posting' AS type, {STRETCH}, p.account::VARCHAR AS account, p.sku::VARCHAR AS sku, p.model::VARCHAR AS model,
       p.version::BIGINT AS version, p.tenant::VARCHAR AS tenant, p.outcome::VARCHAR AS outcome,
       sum(p.cost_picousd)::DECIMAL(38, 0) AS cost_picousd, sum(p.quantity)::DECIMAL(38, 0) AS quantity,
       sum(p.requests)::DECIMAL(38, 0) AS requests, sum(p.rows)::DECIMAL(38, 0) AS "rows", count(*)::BIGINT AS entries
FROM postings AS p JOIN numbered AS n USING (filename)
GROUP BY n.container, n.boot_ns, n.first_seq, p.account, p.sku, p.model, p.version, p.tenant, p.outcome
ORDER BY type, container, boot_ns, seq, account, sku, unit, model, version, tenant, outcome
"""

-- The other tables' money again, summed over each life's unbroken run of segments in an hour: small, so quick. Filter by `type`
-- (segment, charge or posting: each adds up to the bill by itself), and never add this to the other tables.
-- For Athena; Trino (Hive connector) and Spark read the same files (README.md). Put your bucket, and its prefix if any, for
-- BUCKET, and the day of your first segment for the range's begin: partitions are computed from these rules, none is registered.
CREATE EXTERNAL TABLE IF NOT EXISTS steelyard_sums (
  `type` string,
  `container` string,
  `boot_ns` bigint,
  `seq` bigint,
  `last_seq` bigint,
  `segments` bigint,
  `sha256` string,
  `previous_sha256` string,
  `from_ns` bigint,
  `to_ns` bigint,
  `price_book_sha256` string,
  `collapsed` decimal(38,0),
  `account` string,
  `sku` string,
  `unit` string,
  `model` string,
  `version` bigint,
  `tenant` string,
  `outcome` string,
  `cost_picousd` decimal(38,0),
  `quantity` decimal(38,0),
  `beyond` decimal(38,0),
  `since` bigint,
  `requests` decimal(38,0),
  `rows` decimal(38,0),
  `entries` bigint
)
PARTITIONED BY (`dt` string, `hr` string)
STORED AS PARQUET
LOCATION 's3://BUCKET/compacted/v1/sums/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.dt.type' = 'date',
  'projection.dt.format' = 'yyyy-MM-dd',
  'projection.dt.range' = '2026-01-01,NOW',
  'projection.hr.type' = 'integer',
  'projection.hr.range' = '0,23',
  'projection.hr.digits' = '2'
);

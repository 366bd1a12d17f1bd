-- One row per segment: its place in the chain, its time and what it charges.
-- For Athena; Trino (Hive connector) and Spark read the same files (README.md). Put your bucket, and its prefix if any, for
-- BUCKET, and the day of your first segment for the range's begin: partitions are computed from these rules, none is registered.
CREATE EXTERNAL TABLE IF NOT EXISTS steelyard_segments (
  `container` string,
  `boot_ns` bigint,
  `seq` bigint,
  `sha256` string,
  `previous_sha256` string,
  `from_ns` bigint,
  `to_ns` bigint,
  `price_book_sha256` string,
  `cost_picousd` bigint,
  `requests` bigint,
  `collapsed` bigint
)
PARTITIONED BY (`dt` string, `hr` string)
STORED AS PARQUET
LOCATION 's3://BUCKET/compacted/v1/segments/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.dt.type' = 'date',
  'projection.dt.format' = 'yyyy-MM-dd',
  'projection.dt.range' = '2026-01-01,NOW',
  'projection.hr.type' = 'integer',
  'projection.hr.range' = '0,23',
  'projection.hr.digits' = '2'
);

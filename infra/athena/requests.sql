-- One receipt per request, where detail was kept; a segment's `collapsed` requests are in its postings only.
-- For Athena; Trino (Hive connector) and Spark read the same files (README.md). Put your bucket, and its prefix if any, for
-- BUCKET, and the day of your first segment for the range's begin: partitions are computed from these rules, none is registered.
CREATE EXTERNAL TABLE IF NOT EXISTS steelyard_requests (
  `id` string,
  `at_ns` bigint,
  `container` string,
  `boot_ns` bigint,
  `seq` bigint,
  `model` string,
  `version` bigint,
  `variant` string,
  `tenant` string,
  `door` string,
  `outcome` string,
  `rows` bigint,
  `cpu_ns` bigint,
  `cost_picousd` bigint,
  `request_bytes` bigint,
  `response_bytes` bigint,
  `queue_ns` bigint,
  `run_ns` bigint,
  `batch_rows` bigint
)
PARTITIONED BY (`dt` string, `hr` string)
STORED AS PARQUET
LOCATION 's3://BUCKET/compacted/v1/requests/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.dt.type' = 'date',
  'projection.dt.format' = 'yyyy-MM-dd',
  'projection.dt.range' = '2026-01-01,NOW',
  'projection.hr.type' = 'integer',
  'projection.hr.range' = '0,23',
  'projection.hr.digits' = '2'
);

-- Where the money went: sum only these (or charges), never requests. Sum as decimal(38,0): a bigint overflows.
-- For Athena; Trino (Hive connector) and Spark read the same files (README.md). Put your bucket, and its prefix if any, for
-- BUCKET, and the day of your first segment for the range's begin: partitions are computed from these rules, none is registered.
CREATE EXTERNAL TABLE IF NOT EXISTS steelyard_postings (
  `container` string,
  `boot_ns` bigint,
  `seq` bigint,
  `account` string,
  `sku` string,
  `cost_picousd` bigint,
  `quantity` decimal(38,0),
  `model` string,
  `version` bigint,
  `tenant` string,
  `outcome` string,
  `requests` bigint,
  `rows` bigint,
  `phases` struct<interpreter_ns:bigint,imports_ns:bigint,settings_ns:bigint,store_ns:bigint,download_ns:bigint,verify_ns:bigint,session_ns:bigint,warm_up_ns:bigint,app_ns:bigint,other_ns:bigint,ready_ns:bigint,first_run_ns:bigint,first_answer_ns:bigint>
)
PARTITIONED BY (`dt` string, `hr` string)
STORED AS PARQUET
LOCATION 's3://BUCKET/compacted/v1/postings/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.dt.type' = 'date',
  'projection.dt.format' = 'yyyy-MM-dd',
  'projection.dt.range' = '2026-01-01,NOW',
  'projection.hr.type' = 'integer',
  'projection.hr.range' = '0,23',
  'projection.hr.digits' = '2'
);

-- What the platform bills for each sku of a segment: the postings of a segment add up to exactly this.
-- For Athena; Trino (Hive connector) and Spark read the same files (README.md). Put your bucket, and its prefix if any, for
-- BUCKET, and the day of your first segment for the range's begin: partitions are computed from these rules, none is registered.
CREATE EXTERNAL TABLE IF NOT EXISTS steelyard_charges (
  `container` string,
  `boot_ns` bigint,
  `seq` bigint,
  `sku` string,
  `unit` string,
  `quantity` decimal(38,0),
  `cost_picousd` bigint,
  `beyond` decimal(38,0),
  `since` bigint
)
PARTITIONED BY (`dt` string, `hr` string)
STORED AS PARQUET
LOCATION 's3://BUCKET/compacted/v1/charges/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.dt.type' = 'date',
  'projection.dt.format' = 'yyyy-MM-dd',
  'projection.dt.range' = '2026-01-01,NOW',
  'projection.hr.type' = 'integer',
  'projection.hr.range' = '0,23',
  'projection.hr.digits' = '2'
);

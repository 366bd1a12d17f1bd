# The compacted ledger as tables for Athena, made from the very statements in infra/athena (`steelyard ledger compact` writes the files).

locals {
  statements = "${path.module}/../../../athena"
  ddl        = { for name in fileset(local.statements, "*.sql") : trimsuffix(name, ".sql") => file("${local.statements}/${name}") }

  tables = { for table, text in local.ddl : table => {
    columns    = regexall("(?m)^  `(\\w+)` (.+?),?$", text)
    partitions = regexall("`(\\w+)` (\\w+)", split("STORED AS", split("PARTITIONED BY", text)[1])[0])
    properties = { for pair in regexall("'([a-z.]+)' = '([^']*)'", text) : pair[0] => replace(pair[1], "s3://BUCKET/", local.place) }
    location   = replace(regex("LOCATION '([^']+)'", text)[0], "s3://BUCKET/", local.place)
    says       = trimprefix(split("\n", text)[0], "-- ")
  } }

  place = "s3://${var.bucket}/${var.root}"
}

resource "aws_glue_catalog_database" "ledger" {
  name        = replace("${var.name}_ledger", "-", "_")
  description = "Steelyard's compacted ledger"
}

resource "aws_glue_catalog_table" "ledger" {
  for_each = local.tables

  database_name = aws_glue_catalog_database.ledger.name
  name          = "steelyard_${each.key}"
  description   = each.value.says
  table_type    = "EXTERNAL_TABLE"
  parameters    = merge(each.value.properties, { EXTERNAL = "TRUE", classification = "parquet" })

  dynamic "partition_keys" {
    for_each = each.value.partitions

    content {
      name = partition_keys.value[0]
      type = partition_keys.value[1]
    }
  }

  storage_descriptor {
    location      = each.value.location
    input_format  = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"

    ser_de_info {
      serialization_library = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
    }

    dynamic "columns" {
      for_each = each.value.columns

      content {
        name = columns.value[0]
        type = columns.value[1]
      }
    }
  }
}

resource "aws_athena_workgroup" "ledger" {
  name        = var.name
  description = "Questions to Steelyard's ledger"

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = var.query_bytes_max

    result_configuration {
      output_location = "s3://${var.results_bucket}/athena/"

      encryption_configuration {
        encryption_option = "SSE_S3"
      }
    }
  }
}

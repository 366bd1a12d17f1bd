# What of the store may be written how. The truth is gateway/contract/layout.py: tests/infra/test_store_layout.py fails when a key
# that is written once is not covered here, or one that moves is.

locals {
  root = var.prefix == "" ? "" : "${var.prefix}/"

  # Written once and never again, by everybody.
  immutable = [
    "models/*/blobs/*",
    "models/*/manifests/*",
    "models/*/signatures/*",
    "models/*/versions/*",
    "models/*/log/*",
    "ledger/v1/*",
    "compacted/v1/*",
    "features/v1/*",
    "prices/sha256/*",
    "runs/*/run.json",
    "runs/*/attempts/*",
    "runs/*/cancel.json",
    "runs/*/metrics/*",
    "runs/*/logs/*",
    "runs/*/stages/*",
    "runs/*/blobs/*",
    "runs/*/checkpoints/*/*",
    "schedules/*/*Z.json",
  ]

  bucket_arn     = aws_s3_bucket.store.arn
  immutable_arns = [for pattern in local.immutable : "${local.bucket_arn}/${local.root}${pattern}"]
}

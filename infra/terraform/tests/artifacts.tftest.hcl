# The store can be read and written over TLS only, keeps what was deleted, and lets nothing be overwritten.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "steelyard-test"
  bucket = "steelyard-test-store"
  prefix = "team-a"
}

run "store" {
  command = apply

  module {
    source = "./modules/artifacts"
  }

  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled"
    error_message = "What is deleted must come back."
  }

  assert {
    condition = alltrue([for block in [aws_s3_bucket_public_access_block.store, aws_s3_bucket_public_access_block.logs] :
    block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets])
    error_message = "No bucket may be public."
  }

  assert {
    condition = anytrue([for s in data.aws_iam_policy_document.store.statement :
      s.effect == "Deny" && contains(s.actions, "s3:*") && length(s.resources) == 2 &&
    [for c in s.condition : "${c.test} ${c.variable} ${join(",", c.values)}"] == ["Bool aws:SecureTransport false"]])
    error_message = "The store must refuse what does not come over TLS."
  }

  assert {
    condition = anytrue([for s in data.aws_iam_policy_document.logs.statement :
    s.effect == "Deny" && [for c in s.condition : c.variable] == ["aws:SecureTransport"]])
    error_message = "The log bucket must refuse what does not come over TLS."
  }

  assert {
    condition = one([for s in data.aws_iam_policy_document.store.statement : s.effect if s.sid == "WrittenOnce"]) == "Deny" && toset(flatten(
      [for s in data.aws_iam_policy_document.store.statement : [for c in s.condition : "${c.test} ${c.variable} ${join(",", c.values)}"] if s.sid == "WrittenOnce"]
    )) == toset(["Null s3:if-none-match true", "Bool s3:ObjectCreationOperation true"])
    error_message = "Keys that are written once must be written with If-None-Match, parts of uploads excepted."
  }

  assert {
    condition = toset(flatten([for s in data.aws_iam_policy_document.store.statement : s.resources if s.sid == "WrittenOnce"])) == toset(
    [for pattern in output.immutable : "arn:aws:s3:::mock-bucket/team-a/${pattern}"])
    error_message = "What is written once lies below the store's prefix."
  }

  assert {
    condition = toset(flatten(
      [for s in data.aws_iam_policy_document.store.statement : [for c in s.condition : "${c.test} ${c.variable} ${join(",", c.values)}"] if s.sid == "NoBlindWrite"]
    )) == toset(["Null s3:if-none-match true", "Null s3:if-match true", "Bool s3:ObjectCreationOperation true"])
    error_message = "Nothing in the store is written without one of the two conditions."
  }

  assert {
    condition     = alltrue(flatten([for s in data.aws_iam_policy_document.store.statement : [for p in s.principals : p.type == "AWS" && contains(p.identifiers, "*")]]))
    error_message = "Denials hold for everybody."
  }

  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.store.rule : rule.abort_incomplete_multipart_upload[0].days_after_initiation if length(rule.abort_incomplete_multipart_upload) > 0]) == 1
    error_message = "Parts of uploads that failed go after a day."
  }

  assert {
    condition     = one([for rule in aws_s3_bucket_lifecycle_configuration.store.rule : rule.noncurrent_version_expiration[0].noncurrent_days if length(rule.noncurrent_version_expiration) > 0]) == 30
    error_message = "What was replaced or deleted is kept for thirty days."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.store.rule : try(rule.expiration[0].days, 0) == 0 || rule.filter[0].prefix == "team-a/spend/v1/"])
    error_message = "Nothing but day records of spending may expire: models and the ledger stay."
  }

  assert {
    condition     = alltrue([for r in aws_ecr_repository.image : r.image_tag_mutability == "IMMUTABLE" && r.image_scanning_configuration[0].scan_on_push && r.force_delete == false])
    error_message = "Tags never move, images are scanned, and a destroy does not take them along."
  }

  assert {
    condition     = aws_s3_bucket.store.force_destroy == false && aws_s3_bucket.logs.force_destroy == false
    error_message = "A destroy must not take models along unless told so."
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.store.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "Objects are encrypted."
  }

  assert {
    condition     = output.store == "s3://${aws_s3_bucket.store.id}/team-a" && output.root == "team-a/"
    error_message = "The store's URL is what --store takes."
  }
}

run "key_of_ones_own" {
  command = apply

  module {
    source = "./modules/artifacts"
  }

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/0"
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.store.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" && one(aws_s3_bucket_server_side_encryption_configuration.store.rule).bucket_key_enabled
    error_message = "With a key objects are encrypted by it, through a bucket key, which costs a hundredth."
  }
}

run "refuses_a_bucket_with_capitals" {
  command = plan

  module {
    source = "./modules/artifacts"
  }

  variables {
    bucket = "My_Bucket"
  }

  expect_failures = [var.bucket]
}

run "refuses_a_bucket_whose_second_name_would_be_too_long" {
  command = plan

  module {
    source = "./modules/artifacts"
  }

  variables {
    bucket = "a23456789-123456789-123456789-123456789-123456789-12345678"
  }

  expect_failures = [var.bucket]
}

run "refuses_a_prefix_that_ends_with_a_slash" {
  command = plan

  module {
    source = "./modules/artifacts"
  }

  variables {
    prefix = "team-a/"
  }

  expect_failures = [var.prefix]
}

run "refuses_a_long_name" {
  command = plan

  module {
    source = "./modules/artifacts"
  }

  variables {
    name = "steelyard-of-the-whole-company"
  }

  expect_failures = [var.name]
}

run "refuses_a_key_that_is_no_key" {
  command = plan

  module {
    source = "./modules/artifacts"
  }

  variables {
    kms_key_arn = "alias/mine"
  }

  expect_failures = [var.kms_key_arn]
}

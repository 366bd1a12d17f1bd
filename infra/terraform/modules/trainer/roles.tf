# Four roles: Batch itself, the machines, what starts a job's container, what the job may do; and a fifth for the schedules.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

data "aws_iam_policy_document" "trust" {
  for_each = {
    batch     = "batch.amazonaws.com"
    machine   = "ec2.amazonaws.com"
    task      = "ecs-tasks.amazonaws.com"
    scheduler = "scheduler.amazonaws.com"
  }

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [each.value]
    }

    # Nobody else's Batch or Scheduler is let in; EC2 says no account when a machine takes its role.
    dynamic "condition" {
      for_each = each.key == "machine" ? [] : [data.aws_caller_identity.current.account_id]

      content {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "batch" {
  name               = "${var.name}-batch"
  assume_role_policy = data.aws_iam_policy_document.trust["batch"].json
}

resource "aws_iam_role_policy_attachment" "batch" {
  role       = aws_iam_role.batch.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSBatchServiceRole"
}

resource "aws_iam_role" "machine" {
  name               = "${var.name}-machine"
  assume_role_policy = data.aws_iam_policy_document.trust["machine"].json
}

resource "aws_iam_role_policy_attachment" "machine" {
  role       = aws_iam_role.machine.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "machine" {
  name = "${var.name}-machine"
  role = aws_iam_role.machine.name
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-job-execution"
  assume_role_policy = data.aws_iam_policy_document.trust["task"].json
}

resource "aws_iam_role_policy" "execution" {
  name   = "start"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

data "aws_iam_policy_document" "execution" {
  statement {
    sid       = "RegistryLogin"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # it has no resource
  }

  dynamic "statement" {
    for_each = var.repository_arn == null ? [] : [var.repository_arn]

    content {
      sid       = "Pull"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
      resources = [statement.value]
    }
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.jobs.arn}:*"]
  }
}

resource "aws_iam_role" "job" {
  name               = "${var.name}-job"
  assume_role_policy = data.aws_iam_policy_document.trust["task"].json
}

resource "aws_iam_role_policy" "job" {
  name   = "store"
  role   = aws_iam_role.job.id
  policy = data.aws_iam_policy_document.job.json
}

locals {
  # What a job writes once: with If-None-Match, or not at all.
  once = [for pattern in [
    "models/*/blobs/*",
    "models/*/manifests/*",
    "models/*/signatures/*",
    "models/*/versions/*",
    "models/*/log/*",
    "ledger/v1/training/*",
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
  ] : "${var.store.arn}/${pattern}"]

  # What moves by compare-and-swap, which the bucket's policy insists on.
  moved = [for pattern in [
    "models/*/aliases/*",
    "runs/*/heartbeat.json",
    "runs/*/decision.json",
    "runs/*/checkpoints/LATEST",
    "schedules/*/lease.json",
    "submissions/*",
  ] : "${var.store.arn}/${pattern}"]
}

data "aws_iam_policy_document" "job" {
  # Unconditional: see the gateway's role.
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = concat([var.store.bucket_arn], distinct([for arn in var.data_arns : split("/", arn)[0]]))
  }

  # Not keys/ and not spend/: who may call, and what he spent, is none of a job's business.
  statement {
    sid     = "Read"
    actions = ["s3:GetObject"]
    resources = [for pattern in ["models/*", "runs/*", "ledger/v1/training/*", "features/v1/*", "prices/*", "schedules/*", "submissions/*"] :
    "${var.store.arn}/${pattern}"]
  }

  dynamic "statement" {
    for_each = length(var.data_arns) == 0 ? [] : [var.data_arns]

    content {
      sid       = "Data"
      actions   = ["s3:GetObject", "s3:GetObjectVersion"]
      resources = statement.value
    }
  }

  statement {
    sid       = "WriteOnce"
    actions   = ["s3:PutObject"]
    resources = local.once

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["false"]
    }
  }

  # Beginning an upload and sending its parts create nothing yet.
  statement {
    sid       = "Parts"
    actions   = ["s3:PutObject"]
    resources = local.once

    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["false"]
    }
  }

  statement {
    sid       = "GiveUp"
    actions   = ["s3:AbortMultipartUpload"]
    resources = local.once
  }

  statement {
    sid       = "Move"
    actions   = ["s3:PutObject"]
    resources = local.moved
  }

  # Old checkpoints, stages that turned out damaged, and a cancellation that is taken back. The bucket keeps versions.
  statement {
    sid     = "Delete"
    actions = ["s3:DeleteObject"]
    resources = [for pattern in ["runs/*/checkpoints/*/*", "runs/*/stages/*", "runs/*/blobs/*", "runs/*/cancel.json"] :
    "${var.store.arn}/${pattern}"]
  }

  dynamic "statement" {
    for_each = var.store.kms_key_arn == null ? [] : [var.store.kms_key_arn]

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }

  # The supervisor is a job too, and acts in this role: it looks after runs and submits them again.
  dynamic "statement" {
    for_each = var.supervisor_image == null ? [] : [1]

    content {
      sid       = "Look"
      actions   = ["batch:ListJobs", "batch:DescribeJobs"]
      resources = ["*"] # they have no resource
    }
  }

  dynamic "statement" {
    for_each = var.supervisor_image == null ? [] : [1]

    content {
      sid     = "SubmitAgain"
      actions = ["batch:SubmitJob", "batch:TagResource", "batch:TerminateJob"]
      resources = [
        aws_batch_job_queue.spot.arn,
        aws_batch_job_queue.on_demand.arn,
        "${local.batch_arn}:job-definition/${var.name}-*",
        "${local.batch_arn}:job-definition/steelyard-*", # what the launcher registers
        "${local.batch_arn}:job/*",
      ]
    }
  }
}

locals {
  batch_arn = "arn:${data.aws_partition.current.partition}:batch:${var.region}:${data.aws_caller_identity.current.account_id}"
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.name}-scheduler"
  assume_role_policy = data.aws_iam_policy_document.trust["scheduler"].json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "submit"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid     = "Submit"
    actions = ["batch:SubmitJob", "batch:TagResource"]
    resources = [
      aws_batch_job_queue.spot.arn,
      aws_batch_job_queue.on_demand.arn,
      aws_batch_job_queue.small.arn,
      "${local.batch_arn}:job-definition/${var.name}-*",
      "${local.batch_arn}:job-definition/steelyard-*",
      "${local.batch_arn}:job/*",
    ]
  }

  statement {
    sid       = "Missed"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.missed.arn]
  }
}

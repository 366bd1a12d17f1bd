# Three roles: what starts a task (pulls the image, opens the log, fetches the webhook's secret), what a task may do in the store, and
# what the schedules may do, which is to start such tasks.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

data "aws_iam_policy_document" "trust" {
  for_each = { task = "ecs-tasks.amazonaws.com", scheduler = "scheduler.amazonaws.com" }

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [each.value]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-keeper-execution"
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
    resources = ["${aws_cloudwatch_log_group.keeper.arn}:*"]
  }

  dynamic "statement" {
    for_each = length(local.secrets) == 0 ? [] : [values(local.secrets)]

    content {
      sid       = "Secrets"
      actions   = ["ssm:GetParameters", "secretsmanager:GetSecretValue"]
      resources = statement.value
    }
  }
}

resource "aws_iam_role" "keeper" {
  name               = "${var.name}-keeper"
  assume_role_policy = data.aws_iam_policy_document.trust["task"].json
}

resource "aws_iam_role_policy" "keeper" {
  name   = "store"
  role   = aws_iam_role.keeper.id
  policy = data.aws_iam_policy_document.keeper.json
}

locals {
  compacted = ["${var.store.arn}/compacted/v1/*"]
  alerts    = ["${var.store.arn}/budgets/v1/*"]
}

data "aws_iam_policy_document" "keeper" {
  # Unconditional: see the gateway's role.
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [var.store.bucket_arn]
  }

  # No model, no key, no run: the ledger, what was made of it, and the prices it was weighed by.
  statement {
    sid     = "Read"
    actions = ["s3:GetObject"]
    resources = concat(
      [for pattern in ["ledger/v1/*", "compacted/v1/*", "prices/*"] : "${var.store.arn}/${pattern}"],
      var.budgets == null ? [] : local.alerts,
    )
  }

  # Plans, tables and manifests are written once: with If-None-Match, or not at all. The ledger itself cannot be touched.
  statement {
    sid       = "WriteOnce"
    actions   = ["s3:PutObject"]
    resources = local.compacted

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
    resources = local.compacted

    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["false"]
    }
  }

  statement {
    sid       = "GiveUp"
    actions   = ["s3:AbortMultipartUpload"]
    resources = local.compacted
  }

  # That an alert went out moves by compare-and-swap, which the bucket's policy insists on.
  dynamic "statement" {
    for_each = var.budgets == null ? [] : [local.alerts]

    content {
      sid       = "Alerts"
      actions   = ["s3:PutObject"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = var.store.kms_key_arn == null ? [] : [var.store.kms_key_arn]

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.name}-keeper-scheduler"
  assume_role_policy = data.aws_iam_policy_document.trust["scheduler"].json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "start"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

locals {
  ecs_arn = "arn:${data.aws_partition.current.partition}:ecs:${var.region}:${data.aws_caller_identity.current.account_id}"
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid       = "Start"
    actions   = ["ecs:RunTask"]
    resources = ["${local.ecs_arn}:task-definition/${local.family}:*"]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [var.cluster_arn]
    }
  }

  # Its tasks carry the stack's tags, by which the bill is told apart.
  statement {
    sid       = "Tag"
    actions   = ["ecs:TagResource"]
    resources = ["${local.ecs_arn}:task/${var.cluster}/*"]

    condition {
      test     = "StringEquals"
      variable = "ecs:CreateAction"
      values   = ["RunTask"]
    }
  }

  # In exactly these two roles, and to nobody but ECS.
  statement {
    sid       = "Pass"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.execution.arn, aws_iam_role.keeper.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }

  statement {
    sid       = "Missed"
    actions   = ["sqs:SendMessage"]
    resources = [var.missed_queue_arn]
  }
}

# Two roles: what starts a task (pulls the image, opens the log), and what the gateway itself may do in the store.

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-gateway-execution"
  assume_role_policy = data.aws_iam_policy_document.trust.json
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
    resources = ["${aws_cloudwatch_log_group.gateway.arn}:*"]
  }
}

resource "aws_iam_role" "gateway" {
  name               = "${var.name}-gateway"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "gateway" {
  name   = "store"
  role   = aws_iam_role.gateway.id
  policy = data.aws_iam_policy_document.gateway.json
}

# How a write must look says the bucket's own policy: what lies here is written once, spend/v1/ by compare-and-swap.
data "aws_iam_policy_document" "gateway" {
  # Without it S3 answers a missing key with 403 and not 404. A condition on the prefix would do that too: when S3 decides between
  # the two there is no prefix. So names of keys can be listed, and only what follows can be read.
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [var.store.bucket_arn]
  }

  statement {
    sid     = "Read"
    actions = ["s3:GetObject"]
    resources = [
      "${var.store.arn}/models/*",
      "${var.store.arn}/keys/*",
      "${var.store.arn}/prices/*",
      "${var.store.arn}/ledger/v1/*", # the page /costs, and whether a write whose answer was lost is there
      "${var.store.arn}/compacted/v1/*",
      "${var.store.arn}/features/v1/*",
      "${var.store.arn}/spend/v1/*",
    ]
  }

  statement {
    sid     = "Write"
    actions = ["s3:PutObject"]
    resources = [
      "${var.store.arn}/ledger/v1/dt=*", # not what training cost: that is below ledger/v1/training/
      "${var.store.arn}/ledger/v1/containers/*",
      "${var.store.arn}/features/v1/*",
      "${var.store.arn}/prices/sha256/*", # the book that it weighs by
      "${var.store.arn}/spend/v1/*",
    ]
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

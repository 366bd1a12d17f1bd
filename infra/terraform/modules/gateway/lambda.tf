# The gateway as a function, for traffic so small that a task would idle (`steelyard advise` says when). It is the very image of the
# tasks: on Lambda `steelyard serve` asks for its invocations. Callers sign their requests (AWS_IAM) and send a key besides. What it
# cannot do like a container is said in the README.

data "aws_iam_policy_document" "lambda_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "lambda" {
  count = var.lambda == null ? 0 : 1

  source_policy_documents = [data.aws_iam_policy_document.gateway.json]

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.lambda[0].arn}:*"]
  }
}

resource "aws_cloudwatch_log_group" "lambda" {
  count = var.lambda == null ? 0 : 1

  name              = "/aws/lambda/${var.name}-gateway"
  retention_in_days = var.log_days
  kms_key_id        = var.store.kms_key_arn
}

resource "aws_iam_role" "lambda" {
  count = var.lambda == null ? 0 : 1

  name               = "${var.name}-gateway-lambda"
  assume_role_policy = data.aws_iam_policy_document.lambda_trust.json
}

resource "aws_iam_role_policy" "lambda" {
  count = var.lambda == null ? 0 : 1

  name   = "store"
  role   = aws_iam_role.lambda[0].id
  policy = data.aws_iam_policy_document.lambda[0].json
}

resource "aws_lambda_function" "gateway" {
  #checkov:skip=CKV_AWS_116:callers wait for the answer; a dead-letter queue takes asynchronous events only
  #checkov:skip=CKV_AWS_117:it calls S3 alone, by its role; a VPC would add a cold start and nothing else
  #checkov:skip=CKV_AWS_272:code signing is for zip files; this is an image, named by its digest
  #checkov:skip=CKV_AWS_50:traces are OpenTelemetry's, from the gateway itself
  count = var.lambda == null ? 0 : 1

  function_name                  = "${var.name}-gateway"
  description                    = "Steelyard's gateway, which asks the Runtime API by itself"
  role                           = aws_iam_role.lambda[0].arn
  package_type                   = "Image"
  image_uri                      = var.lambda.image
  architectures                  = [var.architecture == "ARM64" ? "arm64" : "x86_64"]
  memory_size                    = var.lambda.memory_mib
  timeout                        = local.balancer_idle_s
  reserved_concurrent_executions = var.lambda.concurrency_max
  kms_key_arn                    = var.store.kms_key_arn

  image_config {
    entry_point = ["steelyard"]
    command     = ["serve"]
  }

  ephemeral_storage {
    size = var.lambda.scratch_mib
  }

  environment {
    # AWS_REGION is Lambda's own to set.
    variables = merge(
      { for name, value in local.environment : name => value if name != "AWS_REGION" },
      {
        STEELYARD_REPOSITORY__CACHE_BYTES_MAX = tostring(floor(var.lambda.scratch_mib / 2) * 1024 * 1024)
      },
      var.settings,
    )
  }

  depends_on = [aws_cloudwatch_log_group.lambda, aws_iam_role_policy.lambda]
}

resource "aws_lambda_function_url" "gateway" {
  count = var.lambda == null ? 0 : 1

  function_name      = aws_lambda_function.gateway[0].function_name
  authorization_type = "AWS_IAM"
}

# Who is told of what. Each alarm is something that a person can do something about.

data "aws_caller_identity" "current" {}

# Not by the key alias/aws/sns: CloudWatch may not use it, and alarms would reach nobody.
resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:only a key of one's own lets CloudWatch publish; messages name alarms and figures, no data of callers
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

locals {
  balancer = { LoadBalancer = var.gateway.balancer.arn_suffix }
  targets  = merge(local.balancer, { TargetGroup = var.gateway.balancer.target_arn_suffix })
  service  = { ClusterName = var.gateway.cluster, ServiceName = var.gateway.service }
  names    = var.gateway.metrics.names

  # Minutes are how long it must be so. Missing data is fine where a count is missing because nothing happened.
  alarms = {
    failures = {
      says      = "Gateways answer with 5xx: the store, an artifact or a defect. Look at the gateway's log, field reason."
      namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.targets
      statistic = "Sum", over = ">", threshold = 10, minutes = 5, missing = "notBreaching"
    }
    unreachable = {
      says      = "The load balancer itself answers 5xx: no gateway is ready, or gateways close connections."
      namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer
      statistic = "Sum", over = ">", threshold = 10, minutes = 5, missing = "notBreaching"
    }
    no-gateway = {
      says      = "No gateway is ready. Does one start? Without a key in the store it refuses: steelyard keys add."
      namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.targets
      statistic = "Minimum", over = "<", threshold = 1, minutes = 3, missing = "breaching"
    }
    slow = {
      says      = "One answer in a hundred takes longer than the objective."
      namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.targets
      statistic = "p99", over = ">", threshold = var.latency_objective_ms / 1000, minutes = 10, missing = "notBreaching"
    }
    saturated = {
      says      = "Gateways are full for ten minutes: scaling out does not help, or tasks.max is reached."
      namespace = var.gateway.metrics.namespace, metric = local.names["saturation"], dimensions = {}
      statistic = "Average", over = ">", threshold = 0.9, minutes = 10, missing = "notBreaching"
    }
    silent = {
      says      = "Gateways write no figures: scaling on saturation stands still, only CPU scales."
      namespace = var.gateway.metrics.namespace, metric = local.names["saturation"], dimensions = {}
      statistic = "SampleCount", over = "<", threshold = 1, minutes = 10, missing = "breaching"
    }
    shedding = {
      says      = "Requests are refused because gateways are full (429, 503)."
      namespace = var.gateway.metrics.namespace, metric = local.names["shed"], dimensions = {}
      statistic = "Sum", over = ">", threshold = 100, minutes = 5, missing = "notBreaching"
    }
    release = {
      says      = "A release is not followed: an artifact was refused, or the store cannot be read. GET /v1/releases says why."
      namespace = var.gateway.metrics.namespace, metric = local.names["release_problems"], dimensions = {}
      statistic = "Maximum", over = ">", threshold = 0, minutes = 10, missing = "notBreaching"
    }
    ledger = {
      says      = "The ledger cannot be written. Nothing is lost while gateways live; find out what the store says."
      namespace = var.gateway.metrics.namespace, metric = local.names["ledger_failures"], dimensions = {}
      statistic = "Sum", over = ">", threshold = 5, minutes = 10, missing = "notBreaching"
    }
    missed-schedule = {
      says      = "A schedule started nothing: its event lies in the queue, and says what."
      namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = var.missed_queue_name }
      statistic = "Maximum", over = ">", threshold = 0, minutes = 1, missing = "notBreaching"
    }
  }

  over = { ">" = "GreaterThanThreshold", "<" = "LessThanThreshold" }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  comparison_operator = local.over[each.value.over]
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# A job that will not be tried again: events go to a log group, a filter counts them, and the alarm is like any other.
resource "aws_cloudwatch_event_rule" "failed_job" {
  name        = "${var.name}-failed-job"
  description = "A training job of this stack has failed for good"
  event_pattern = jsonencode({
    source      = ["aws.batch"]
    detail-type = ["Batch Job State Change"]
    detail      = { status = ["FAILED"], jobQueue = [{ wildcard = "*:job-queue/${var.name}-*" }] }
  })
}

resource "aws_cloudwatch_log_group" "failed_job" {
  name              = "/aws/events/steelyard/${var.name}/failed-jobs"
  retention_in_days = 30
  kms_key_id        = var.kms_key_arn
}

resource "aws_cloudwatch_event_target" "failed_job" {
  rule = aws_cloudwatch_event_rule.failed_job.name
  arn  = aws_cloudwatch_log_group.failed_job.arn
}

data "aws_iam_policy_document" "events" {
  statement {
    actions   = ["logs:CreateLogStream"]
    resources = ["${aws_cloudwatch_log_group.failed_job.arn}:*"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com", "delivery.logs.amazonaws.com"]
    }
  }

  statement {
    actions   = ["logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.failed_job.arn}:*:*"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com", "delivery.logs.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = concat([aws_cloudwatch_event_rule.failed_job.arn], aws_cloudwatch_event_rule.failed_keeper[*].arn)
    }
  }
}

resource "aws_cloudwatch_log_resource_policy" "events" {
  policy_name     = "${var.name}-failed-jobs"
  policy_document = data.aws_iam_policy_document.events.json
}

resource "aws_cloudwatch_log_metric_filter" "failed_job" {
  name           = "FailedJobs"
  log_group_name = aws_cloudwatch_log_group.failed_job.name
  pattern        = "{ $.detail.status = \"FAILED\" }"

  metric_transformation {
    namespace = var.gateway.metrics.namespace
    name      = "FailedJobs"
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "failed_job" {
  alarm_name          = "${var.name}-failed-job"
  alarm_description   = "A training job failed for good: steelyard runs list, then steelyard runs logs RUN."
  namespace           = var.gateway.metrics.namespace
  metric_name         = "FailedJobs"
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

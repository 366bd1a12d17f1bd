# A run of the keeper that did not end well: a ledger that is not whole, hours that cannot be compacted, a budget that is crossed. Events
# go where those of failed jobs go, and the alarm is like any other.

resource "aws_cloudwatch_event_rule" "failed_keeper" {
  count = var.keeper_family == null ? 0 : 1

  name        = "${var.name}-failed-keeper"
  description = "A run of the keeper of this stack has ended with another code than 0, or never began"
  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      lastStatus        = ["STOPPED"]
      taskDefinitionArn = [{ wildcard = "*:task-definition/${var.keeper_family}:*" }]
      "$or" = [
        { containers = { exitCode = [{ anything-but = [0] }] } },
        { stopCode = ["TaskFailedToStart"] },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "failed_keeper" {
  count = var.keeper_family == null ? 0 : 1

  rule = aws_cloudwatch_event_rule.failed_keeper[0].name
  arn  = aws_cloudwatch_log_group.failed_job.arn
}

resource "aws_cloudwatch_log_metric_filter" "failed_keeper" {
  count = var.keeper_family == null ? 0 : 1

  name           = "FailedKeeper"
  log_group_name = aws_cloudwatch_log_group.failed_job.name
  pattern        = "{ $.detail.lastStatus = \"STOPPED\" }"

  metric_transformation {
    namespace = var.gateway.metrics.namespace
    name      = "FailedKeeper"
    value     = "1"
    unit      = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "failed_keeper" {
  count = var.keeper_family == null ? 0 : 1

  alarm_name          = "${var.name}-failed-keeper"
  alarm_description   = "A run of the keeper failed, and its log says why: faults of the ledger (1), a mistake in budgets (2), a budget that is crossed (3), an alert that nobody took (75)."
  namespace           = var.gateway.metrics.namespace
  metric_name         = "FailedKeeper"
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

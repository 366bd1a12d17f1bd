# Scaling on the gateway's own gauge. Every 15 s (log.figures_s) each gateway writes a line with its saturation; a metric filter makes
# a CloudWatch metric of it; its mean over all gateways is held at the target. No agent, no sidecar, no call from the gateway to CloudWatch.

locals {
  namespace = "Steelyard/${var.name}"

  # Field of the line: name of the metric, and its unit.
  figures = {
    saturation       = { metric = "Saturation", unit = "None" }
    in_flight        = { metric = "InFlight", unit = "Count" }
    shed             = { metric = "Shed", unit = "Count" }
    release_problems = { metric = "ReleaseProblems", unit = "Count" }
    ledger_failures  = { metric = "LedgerFailures", unit = "Count" }
  }
}

resource "aws_cloudwatch_log_metric_filter" "figure" {
  for_each = local.figures

  name           = each.value.metric
  log_group_name = aws_cloudwatch_log_group.gateway.name
  pattern        = "{ $.message = \"figures\" && $.${each.key} >= 0 }"

  metric_transformation {
    namespace = local.namespace
    name      = each.value.metric
    value     = "$.${each.key}"
    unit      = each.value.unit
  }
}

resource "aws_appautoscaling_target" "gateway" {
  service_namespace  = "ecs"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.gateway.name}"
  scalable_dimension = "ecs:service:DesiredCount"
  min_capacity       = var.tasks.min
  max_capacity       = var.tasks.max
}

resource "aws_appautoscaling_policy" "saturation" {
  name               = "saturation"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.gateway.service_namespace
  resource_id        = aws_appautoscaling_target.gateway.resource_id
  scalable_dimension = aws_appautoscaling_target.gateway.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = var.saturation_target
    scale_out_cooldown = 30
    scale_in_cooldown  = 300

    customized_metric_specification {
      namespace   = local.namespace
      metric_name = local.figures.saturation.metric
      statistic   = "Average"
    }
  }
}

# Where the log does not arrive, CPU still does.
resource "aws_appautoscaling_policy" "cpu" {
  name               = "cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.gateway.service_namespace
  resource_id        = aws_appautoscaling_target.gateway.resource_id
  scalable_dimension = aws_appautoscaling_target.gateway.scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = var.cpu_target_percent
    scale_out_cooldown = 30
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_appautoscaling_scheduled_action" "floor" {
  for_each = var.floors

  name               = each.key
  service_namespace  = aws_appautoscaling_target.gateway.service_namespace
  resource_id        = aws_appautoscaling_target.gateway.resource_id
  scalable_dimension = aws_appautoscaling_target.gateway.scalable_dimension
  schedule           = each.value.schedule
  timezone           = each.value.timezone

  scalable_target_action {
    min_capacity = each.value.min
  }
}

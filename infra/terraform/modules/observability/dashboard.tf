# One page: are answers good, is there room, what do tasks do, what happened to jobs.

locals {
  figures = var.gateway.metrics.namespace
  widgets = [
    { title = "Requests and errors", stat = "Sum", metrics = [
      ["AWS/ApplicationELB", "RequestCount", "LoadBalancer", var.gateway.balancer.arn_suffix],
      ["AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "LoadBalancer", var.gateway.balancer.arn_suffix],
      ["AWS/ApplicationELB", "HTTPCode_Target_4XX_Count", "LoadBalancer", var.gateway.balancer.arn_suffix],
      ["AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count", "LoadBalancer", var.gateway.balancer.arn_suffix],
    ] },
    { title = "Time of answers, 99th percentile", stat = "p99", metrics = [
      ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", var.gateway.balancer.arn_suffix],
    ] },
    { title = "Saturation, mean and fullest", stat = "Average", metrics = [
      [local.figures, local.names["saturation"]],
      [local.figures, local.names["saturation"], { stat = "Maximum" }],
    ] },
    { title = "In flight, and refused because full", stat = "Sum", metrics = [
      [local.figures, local.names["in_flight"], { stat = "Average" }],
      [local.figures, local.names["shed"]],
    ] },
    { title = "Tasks: CPU and memory, percent", stat = "Average", metrics = [
      ["AWS/ECS", "CPUUtilization", "ClusterName", var.gateway.cluster, "ServiceName", var.gateway.service],
      ["AWS/ECS", "MemoryUtilization", "ClusterName", var.gateway.cluster, "ServiceName", var.gateway.service],
    ] },
    { title = "Gateways that are ready", stat = "Average", metrics = [
      ["AWS/ApplicationELB", "HealthyHostCount", "TargetGroup", var.gateway.balancer.target_arn_suffix, "LoadBalancer", var.gateway.balancer.arn_suffix],
    ] },
    { title = "Releases not followed, ledger not written", stat = "Maximum", metrics = [
      [local.figures, local.names["release_problems"]],
      [local.figures, local.names["ledger_failures"], { stat = "Sum" }],
    ] },
    { title = "Jobs that failed, schedules that were missed", stat = "Sum", metrics = [
      [local.figures, "FailedJobs"],
      ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.missed_queue_name, { stat = "Maximum" }],
    ] },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = index % 2 * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = var.region
        period  = 60
        stat    = widget.stat
        view    = "timeSeries"
        metrics = widget.metrics
      }
    }]
  })
}

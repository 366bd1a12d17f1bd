# Schedules submit jobs themselves, without a function in between (trainers/launch/schedule.py says the same). What could not be
# delivered in ten minutes lands in a queue, and somebody is told.

resource "aws_sqs_queue" "missed" {
  name                      = "${var.name}-missed-schedules"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
}

locals {
  scheduled = { for name, job in var.jobs : name => job if job.schedule != null }

  # The API's names with a capital first; tags are our own names.
  events = { for name, job in local.scheduled : name => {
    JobName       = "steelyard-${var.name}-${name}"
    JobQueue      = job.prefer == "spot" ? aws_batch_job_queue.spot.name : aws_batch_job_queue.on_demand.name
    JobDefinition = aws_batch_job_definition.job[name].arn
    ContainerOverrides = {
      Environment = [
        { Name = "STEELYARD_SCHEDULE", Value = "${var.name}-${name}" },
        { Name = "STEELYARD_SCHEDULED_TIME", Value = "<aws.scheduler.scheduled-time>" },
        { Name = "STEELYARD_STORE", Value = var.store.url },
      ]
    }
    PropagateTags = true
    Tags = {
      "steelyard:job"            = name
      "steelyard:schedule"       = "${var.name}-${name}"
      "steelyard:scheduled-time" = "<aws.scheduler.scheduled-time>"
    }
  } }
}

resource "aws_scheduler_schedule" "job" {
  for_each = local.scheduled

  name                         = "steelyard-${var.name}-${each.key}"
  description                  = "${each.value.recipe}: ${each.value.schedule.expression} (${each.value.schedule.timezone})"
  schedule_expression          = each.value.schedule.expression
  schedule_expression_timezone = each.value.schedule.timezone
  state                        = each.value.schedule.enabled ? "ENABLED" : "DISABLED"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:batch:submitJob"
    role_arn = aws_iam_role.scheduler.arn
    # jsonencode writes < and > as escapes, which EventBridge would not find.
    input = replace(replace(jsonencode(local.events[each.key]), "\\u003c", "<"), "\\u003e", ">")

    retry_policy {
      maximum_event_age_in_seconds = 600
      maximum_retry_attempts       = 10
    }

    dead_letter_config {
      arn = aws_sqs_queue.missed.arn
    }
  }
}

resource "aws_scheduler_schedule" "supervisor" {
  count = var.supervisor_image == null ? 0 : 1

  name                         = "steelyard-supervisor-${var.name}"
  description                  = "looks after the runs in ${var.store.url}"
  schedule_expression          = "rate(30 minutes)"
  schedule_expression_timezone = "UTC"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:batch:submitJob"
    role_arn = aws_iam_role.scheduler.arn
    input = jsonencode({
      JobName            = "steelyard-supervisor"
      JobQueue           = aws_batch_job_queue.small.name
      JobDefinition      = aws_batch_job_definition.supervisor[0].arn
      ContainerOverrides = { Environment = [{ Name = "STEELYARD_STORE", Value = var.store.url }] }
    })

    retry_policy {
      maximum_event_age_in_seconds = 600
      maximum_retry_attempts       = 10
    }

    dead_letter_config {
      arn = aws_sqs_queue.missed.arn
    }
  }
}

# Three schedules, one task definition: each says its own command. Two runs at once do no harm: compaction claims what it does, and an
# alert goes out once. A run that failed is not tried again, for the next one does what it left; somebody is told (observability).

locals {
  jobs = merge(
    {
      compact = { says = "Closed hours of the ledger become Parquet", command = ["ledger", "compact"], when = var.compact }
      verify  = { says = "Everything in the ledger is verified", command = ["ledger", "verify"], when = var.verify }
    },
    var.budgets == null ? {} : {
      budgets = {
        says = "Budgets are checked, and somebody is told", command = ["budgets", "check"]
        when = { enabled = var.budgets.enabled, schedule = var.budgets.schedule }
      }
    },
  )
}

# Names begin with keeper: those of `steelyard schedule` begin with steelyard-.
resource "aws_scheduler_schedule" "job" {
  for_each = local.jobs

  name                         = "keeper-${var.name}-${each.key}"
  description                  = "${each.value.says}: ${var.store.url}"
  schedule_expression          = each.value.when.schedule
  schedule_expression_timezone = "UTC"
  state                        = each.value.when.enabled ? "ENABLED" : "DISABLED"

  flexible_time_window {
    mode = "OFF"
  }

  # The input of a target that is a cluster are the task's overrides.
  target {
    arn      = var.cluster_arn
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ containerOverrides = [{ name = "keeper", command = each.value.command }] })

    ecs_parameters {
      task_definition_arn     = aws_ecs_task_definition.keeper.arn
      task_count              = 1
      launch_type             = "FARGATE"
      platform_version        = "LATEST"
      propagate_tags          = "TASK_DEFINITION"
      enable_ecs_managed_tags = true

      network_configuration {
        subnets          = var.subnet_ids
        security_groups  = [aws_security_group.keeper.id]
        assign_public_ip = false
      }
    }

    retry_policy {
      maximum_event_age_in_seconds = 600
      maximum_retry_attempts       = 10
    }

    dead_letter_config {
      arn = var.missed_queue_arn
    }
  }

  # Whoever starts a task first must be able to.
  depends_on = [aws_iam_role_policy.scheduler, aws_iam_role_policy.keeper, aws_iam_role_policy.execution]
}

# What a job is, word for word as the launcher says it (trainers/launch/batch_payloads.py): tests/infra compares the two.

locals {
  # The region by both names: ECS sets the first, boto3 reads the second.
  job_environment = merge(
    { AWS_REGION = var.region, AWS_DEFAULT_REGION = var.region },
    var.endpoint_url == null ? {} : { AWS_ENDPOINT_URL = var.endpoint_url },
  )

  specs = { for name, job in var.jobs : name => {
    version   = 1
    name      = name
    recipe    = job.recipe
    image     = job.image
    params    = job.params
    resources = { cpu = job.cpu, memory_gb = job.memory_gb, gpu = job.gpu, shm_gb = job.shm_gb }
    market    = { prefer = job.prefer, fallback_on_demand_after = job.fallback_on_demand_after }
    limits    = { wall = job.wall, attempt = "${job.attempt_minutes}m", max_cost_usd = job.max_cost_usd }
    promote   = { to = job.promote_to }
  } }

  logs = {
    logDriver = "awslogs"
    options   = { "awslogs-group" = aws_cloudwatch_log_group.jobs.name }
  }
}

resource "aws_cloudwatch_log_group" "jobs" {
  name              = "/steelyard/${var.name}/jobs"
  retention_in_days = var.log_days
  kms_key_id        = var.store.kms_key_arn
}

resource "aws_batch_job_definition" "job" {
  for_each = var.jobs

  name                  = "${var.name}-${each.key}"
  type                  = "container"
  platform_capabilities = ["EC2"]
  propagate_tags        = true

  container_properties = jsonencode({
    image            = each.value.image
    command          = ["steelyard", "train"]
    jobRoleArn       = aws_iam_role.job.arn
    executionRoleArn = aws_iam_role.execution.arn

    environment = [for name, value in merge(local.job_environment, {
      STEELYARD_LAUNCHER = "aws-batch"
      STEELYARD_SPEC     = jsonencode(local.specs[each.key])
    }) : { name = name, value = value }]

    resourceRequirements = concat(
      [
        { type = "VCPU", value = tostring(each.value.cpu) },
        { type = "MEMORY", value = tostring(floor(each.value.memory_gb * 1024 + 0.5)) },
      ],
      each.value.gpu > 0 ? [{ type = "GPU", value = tostring(each.value.gpu) }] : [],
    )

    linuxParameters = {
      initProcessEnabled = true # passes SIGTERM on and collects the loader's dead children
      sharedMemorySize   = floor(each.value.shm_gb * 1024 + 0.5)
    }

    logConfiguration = local.logs
  })

  # The first rule that fits wins, and without one Batch would try again: so EXIT ends the list.
  retry_strategy {
    attempts = 10

    evaluate_on_exit {
      on_status_reason = "Host EC2*"
      action           = "RETRY"
    }
    evaluate_on_exit {
      on_exit_code = "75"
      action       = "RETRY"
    }
    evaluate_on_exit {
      on_exit_code = "143"
      action       = "RETRY"
    }
    evaluate_on_exit {
      on_reason = "CannotPullContainer*"
      action    = "RETRY"
    }
    evaluate_on_exit {
      on_reason = "*"
      action    = "EXIT"
    }
  }

  # An attempt stops itself after its minutes; Batch ends one that hangs a tenth later.
  timeout {
    attempt_duration_seconds = each.value.attempt_minutes * 60 + ceil(each.value.attempt_minutes * 6)
  }
}

resource "aws_batch_job_definition" "supervisor" {
  count = var.supervisor_image == null ? 0 : 1

  name                  = "${var.name}-supervisor"
  type                  = "container"
  platform_capabilities = ["EC2"]
  propagate_tags        = true

  container_properties = jsonencode({
    image            = var.supervisor_image
    command          = ["steelyard", "schedule", "supervise"]
    jobRoleArn       = aws_iam_role.job.arn
    executionRoleArn = aws_iam_role.execution.arn

    environment = [for name, value in merge(local.job_environment, {
      STEELYARD_BATCH_QUEUE_ON_DEMAND = aws_batch_job_queue.on_demand.name
      STEELYARD_BATCH_QUEUE_SPOT      = aws_batch_job_queue.spot.name
      STEELYARD_STORE                 = var.store.url
    }) : { name = name, value = value }]

    resourceRequirements = [{ type = "VCPU", value = "1" }, { type = "MEMORY", value = "512" }]
    logConfiguration     = local.logs
  })

  retry_strategy {
    attempts = 1
  }

  timeout {
    attempt_duration_seconds = 600
  }
}

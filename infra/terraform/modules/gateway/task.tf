# One task is one gateway: nobody's root, nothing writable but /tmp, which is the task's own disk.
# tests/infra/test_task_definition.py holds this against the gateway's settings, routes and image.

locals {
  port        = 8080
  health_path = "/v2/health/ready"
  user        = "65532:65532"
  scratch     = "/tmp"

  # How a task stops. The gateway lingers, then drains: what it accepted last may still send its body (server.body_timeout_s) and
  # take a request's whole time. Then two runtime.stop_s of half a second and the ledger's ledger.drain_s; four seconds are air.
  body_s         = 10
  drain_s        = local.body_s + var.request_timeout_s
  ledger_drain_s = 10
  linger_drain_s = var.linger_s + local.drain_s + 1 + local.ledger_drain_s
  stop_s         = local.linger_drain_s + 4

  # A connection that the gateway closes while the load balancer sends on it is a 502: the gateway keeps them longer.
  balancer_idle_s = local.body_s + var.request_timeout_s + 5
  keep_alive_s    = local.balancer_idle_s + 15

  # What any gateway needs to know, in a task and in a function.
  environment = merge(
    {
      AWS_REGION                      = var.region
      STEELYARD_STORE                 = var.store.url
      STEELYARD_TIMEOUT_S             = tostring(var.request_timeout_s)
      STEELYARD_SERVER__PORT          = tostring(local.port)
      STEELYARD_ACCESS__REQUIRED      = "always"
      STEELYARD_ACCESS__METRICS_OPEN  = "false"
      STEELYARD_REPOSITORY__CACHE_DIR = "${local.scratch}/steelyard-cache"
      STEELYARD_LOG__FORMAT           = "json"
      STEELYARD_LOG__FIGURES_S        = "15"
    },
    var.endpoint_url == null ? {} : { AWS_ENDPOINT_URL = var.endpoint_url },
  )

  task_environment = merge(
    local.environment,
    {
      STEELYARD_SERVER__HOST                = "0.0.0.0"
      STEELYARD_SERVER__LINGER_S            = tostring(var.linger_s)
      STEELYARD_SERVER__BODY_TIMEOUT_S      = tostring(local.body_s)
      STEELYARD_SERVER__DRAIN_S             = tostring(local.drain_s)
      STEELYARD_SERVER__KEEP_ALIVE_S        = tostring(local.keep_alive_s)
      STEELYARD_LEDGER__DRAIN_S             = tostring(local.ledger_drain_s)
      STEELYARD_REPOSITORY__CACHE_BYTES_MAX = tostring(floor(var.scratch_gib / 2) * 1024 * 1024 * 1024)
    },
    var.settings,
  )
}

resource "aws_cloudwatch_log_group" "gateway" {
  name              = "/steelyard/${var.name}/gateway"
  retention_in_days = var.log_days
  kms_key_id        = var.store.kms_key_arn
}

resource "aws_ecs_task_definition" "gateway" {
  family                   = "${var.name}-gateway"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.gateway.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  ephemeral_storage {
    size_in_gib = var.scratch_gib
  }

  # An empty volume takes owner and mode from the image's own VOLUME at this path: /tmp, where everybody may write.
  volume {
    name = "scratch"
  }

  container_definitions = jsonencode([{
    name                   = "gateway"
    image                  = var.image
    essential              = true
    entryPoint             = ["steelyard"]
    command                = ["serve"]
    user                   = local.user
    readonlyRootFilesystem = true
    stopTimeout            = local.stop_s
    environment            = [for name in sort(keys(local.task_environment)) : { name = name, value = local.task_environment[name] }]
    portMappings           = [{ containerPort = local.port, hostPort = local.port, protocol = "tcp" }]
    mountPoints            = [{ sourceVolume = "scratch", containerPath = local.scratch, readOnly = false }]
    linuxParameters        = { capabilities = { add = [], drop = ["ALL"] }, initProcessEnabled = false }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.gateway.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "gateway"
        mode                  = "non-blocking" # a log that is slow must not stop answers
        max-buffer-size       = "4m"
      }
    }
  }])

  lifecycle {
    precondition {
      condition     = local.stop_s <= 120
      error_message = "A task has at most 120 s to stop: lower request_timeout_s or linger_s."
    }
  }
}

# What a run is: one task of the keeper's image, which ends when its command does. Which command says the schedule.

locals {
  user    = "65532:65532" # infra/images/keeper.Dockerfile
  scratch = "/tmp"
  family  = "${var.name}-keeper"
  secrets = var.budgets == null ? {} : var.budgets.secrets

  # The region by the name that ECS sets as well: a task on this machine is told the same.
  environment = merge(
    {
      AWS_REGION      = var.region
      STEELYARD_STORE = var.store.url
      XDG_CACHE_HOME  = local.scratch
    },
    var.budgets == null ? {} : { STEELYARD_BUDGETS = var.budgets.text },
    var.endpoint_url == null ? {} : { AWS_ENDPOINT_URL = var.endpoint_url },
  )
}

resource "aws_cloudwatch_log_group" "keeper" {
  name              = "/steelyard/${var.name}/keeper"
  retention_in_days = var.log_days
  kms_key_id        = var.store.kms_key_arn
}

resource "aws_ecs_task_definition" "keeper" {
  family                   = local.family
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.keeper.arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  # 20 GiB of it are in Fargate's price, and 21 is the least that can be asked for.
  dynamic "ephemeral_storage" {
    for_each = var.scratch_gib > 20 ? [var.scratch_gib] : []

    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  # An empty volume takes owner and mode from the image's own VOLUME at this path: /tmp, where everybody may write.
  volume {
    name = "scratch"
  }

  container_definitions = jsonencode([{
    name                   = "keeper"
    image                  = var.image
    essential              = true
    entryPoint             = ["steelyard"]
    command                = ["ledger", "compact"]
    user                   = local.user
    readonlyRootFilesystem = true
    environment            = [for name in sort(keys(local.environment)) : { name = name, value = local.environment[name] }]
    secrets                = [for name in sort(keys(local.secrets)) : { name = name, valueFrom = local.secrets[name] }]
    mountPoints            = [{ sourceVolume = "scratch", containerPath = local.scratch, readOnly = false }]
    linuxParameters        = { capabilities = { add = [], drop = ["ALL"] }, initProcessEnabled = true } # passes SIGTERM on

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.keeper.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "keeper"
      }
    }
  }])
}

resource "aws_security_group" "keeper" {
  #checkov:skip=CKV2_AWS_5:the schedules start tasks in it, and there checkov does not look
  name        = local.family
  description = "The keeper: called by nobody, calls S3 and the interface endpoints"
  vpc_id      = var.vpc_id
  tags        = { Name = local.family }
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  security_group_id = aws_security_group.keeper.id
  description       = "The store, and the layers of images"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  prefix_list_id    = var.s3_prefix_list_id
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  security_group_id            = aws_security_group.keeper.id
  description                  = "Image registry and logs"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = var.endpoints_security_group_id
}

resource "aws_vpc_security_group_egress_rule" "internet" {
  count = var.internet && var.budgets != null ? 1 : 0

  security_group_id = aws_security_group.keeper.id
  description       = "The webhook of budgets, and its secret"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

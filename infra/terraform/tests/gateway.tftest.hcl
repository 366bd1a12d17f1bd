# A gateway runs as nobody on a root that it cannot write, stops without losing a request, and costs no more than it was allowed to.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                        = "steelyard-test"
  region                      = "eu-central-1"
  image                       = "registry.example/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  repository_arn              = "arn:aws:ecr:eu-central-1:123456789012:repository/steelyard-test/gateway"
  vpc_id                      = "vpc-1"
  private_subnet_ids          = ["subnet-1", "subnet-2"]
  endpoints_security_group_id = "sg-endpoints"
  s3_prefix_list_id           = "pl-s3"
  logs_bucket                 = "logs"
  store                       = { url = "s3://bucket/team-a", bucket_arn = "arn:aws:s3:::bucket", arn = "arn:aws:s3:::bucket/team-a" }
  balancer = {
    subnet_ids      = ["subnet-3", "subnet-4"]
    allowed_cidrs   = ["0.0.0.0/0"]
    certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
  }
}

run "service" {
  command = apply

  module {
    source = "./modules/gateway"
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.gateway.container_definitions)[0].user == "65532:65532"
    error_message = "A gateway must not run as root."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.gateway.container_definitions)[0].readonlyRootFilesystem
    error_message = "A gateway must not be able to change its own files."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.gateway.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"]
    error_message = "A gateway needs no capability."
  }

  assert {
    condition = alltrue([for m in jsondecode(aws_ecs_task_definition.gateway.container_definitions)[0].mountPoints :
    m.containerPath == "/tmp" && contains([for v in aws_ecs_task_definition.gateway.volume : v.name], m.sourceVolume)])
    error_message = "What it downloads lies on the task's own disk."
  }

  assert {
    condition     = aws_ecs_task_definition.gateway.execution_role_arn != null && aws_iam_role.execution.name != aws_iam_role.gateway.name
    error_message = "What starts a task and what the gateway may do are two roles."
  }

  assert {
    condition     = !aws_ecs_service.gateway.network_configuration[0].assign_public_ip
    error_message = "Tasks must have no public address."
  }

  assert {
    condition     = aws_ecs_service.gateway.deployment_circuit_breaker[0].rollback && aws_ecs_service.gateway.deployment_minimum_healthy_percent == 100
    error_message = "A deployment that fails must be rolled back, and one that works must lose nobody."
  }

  assert {
    condition     = !coalesce(aws_ecs_service.gateway.enable_execute_command, false)
    error_message = "Nobody gets a shell in a task."
  }

  assert {
    condition     = alltrue([for s in aws_ecs_service.gateway.capacity_provider_strategy : s.capacity_provider == "FARGATE"])
    error_message = "Spot is used when asked for."
  }

  assert {
    condition = alltrue([for rule in [aws_vpc_security_group_egress_rule.gateway_s3, aws_vpc_security_group_egress_rule.gateway_endpoints, aws_vpc_security_group_egress_rule.balancer] :
    rule.cidr_ipv4 == null && rule.cidr_ipv6 == null])
    error_message = "Neither gateways nor the load balancer may call any address."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.gateway.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.gateway.from_port == 8080
    error_message = "Gateways are called by the load balancer only."
  }

  assert {
    condition     = aws_lb_listener.gateway.protocol == "HTTPS" && startswith(aws_lb_listener.gateway.ssl_policy, "ELBSecurityPolicy-TLS13")
    error_message = "Keys travel encrypted."
  }

  assert {
    condition     = aws_lb.this.drop_invalid_header_fields && aws_lb.this.desync_mitigation_mode == "strictest" && aws_lb.this.access_logs[0].enabled && aws_lb.this.enable_deletion_protection
    error_message = "The load balancer must refuse unclean HTTP, keep a log, and not be deleted by a slip."
  }

  # The chain of waiting times: a request fits into the drain, the drain into the stop, the stop into what Fargate gives.
  assert {
    condition = (jsondecode(aws_ecs_task_definition.gateway.container_definitions)[0].stopTimeout <= 120
      && jsondecode(aws_ecs_task_definition.gateway.container_definitions)[0].stopTimeout > local.linger_drain_s
      && local.drain_s > var.request_timeout_s
    && aws_lb_target_group.gateway.deregistration_delay >= local.drain_s)
    error_message = "stopTimeout > drain > request timeout."
  }

  assert {
    condition     = local.keep_alive_s > aws_lb.this.idle_timeout && aws_lb.this.idle_timeout > var.request_timeout_s + local.body_s
    error_message = "The gateway keeps connections longer than the load balancer, which waits longer than a request takes."
  }

  assert {
    condition     = alltrue([for s in data.aws_iam_policy_document.gateway.statement : alltrue([for a in s.actions : contains(["s3:ListBucket", "s3:GetObject", "s3:PutObject"], a)])])
    error_message = "A gateway lists, reads and writes objects, and does nothing else."
  }

  assert {
    condition = toset(flatten([for s in data.aws_iam_policy_document.gateway.statement : s.resources if contains(s.actions, "s3:PutObject")])) == toset([
      for p in ["ledger/v1/dt=*", "ledger/v1/containers/*", "features/v1/*", "prices/sha256/*", "spend/v1/*"] : "arn:aws:s3:::bucket/team-a/${p}"
    ])
    error_message = "A gateway writes what it measured, and no model, alias or key."
  }

  assert {
    condition     = alltrue(flatten([for s in data.aws_iam_policy_document.gateway.statement : [for r in s.resources : r == "arn:aws:s3:::bucket" || startswith(r, "arn:aws:s3:::bucket/team-a/")]]))
    error_message = "A gateway must see no store but its own."
  }

  assert {
    condition     = aws_appautoscaling_policy.saturation.target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metric_name == aws_cloudwatch_log_metric_filter.figure["saturation"].metric_transformation[0].name
    error_message = "Scaling must follow the metric that the filter on the log makes."
  }

  assert {
    condition     = aws_appautoscaling_policy.saturation.target_tracking_scaling_policy_configuration[0].target_value < 1
    error_message = "Scaling begins before requests are refused."
  }

  assert {
    condition     = aws_appautoscaling_target.gateway.max_capacity == 10
    error_message = "What scaling may cost has an upper bound."
  }

  assert {
    condition     = length(aws_lambda_function.gateway) == 0 && length(aws_iam_role.lambda) == 0
    error_message = "The function is there when asked for."
  }

  assert {
    condition     = aws_cloudwatch_log_group.gateway.retention_in_days == 30
    error_message = "Logs must not be kept, and paid, for ever."
  }
}

run "arm_on_spot_with_a_function" {
  command = apply

  module {
    source = "./modules/gateway"
  }

  variables {
    architecture = "ARM64"
    spot         = { on_demand_base = 2, weight = 3 }
    lambda       = { image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/g@sha256:0000000000000000000000000000000000000000000000000000000000000000" }
    floors       = { morning = { schedule = "cron(0 7 ? * MON-FRI *)", min = 4 } }
  }

  assert {
    condition     = aws_ecs_task_definition.gateway.runtime_platform[0].cpu_architecture == "ARM64" && one(aws_lambda_function.gateway[0].architectures) == "arm64"
    error_message = "One variable chooses the processor of both."
  }

  assert {
    condition     = { for s in aws_ecs_service.gateway.capacity_provider_strategy : s.capacity_provider => s.weight } == { FARGATE = 1, FARGATE_SPOT = 3 } && one([for s in aws_ecs_service.gateway.capacity_provider_strategy : s.base if s.capacity_provider == "FARGATE"]) == 2
    error_message = "Two tasks are not on spot, and of the others three in four are."
  }

  assert {
    condition     = aws_lambda_function_url.gateway[0].authorization_type == "AWS_IAM" && aws_lambda_function.gateway[0].reserved_concurrent_executions == 10
    error_message = "The function takes signed requests only, and not endlessly many."
  }

  assert {
    condition     = one(aws_lambda_function.gateway[0].image_config).entry_point == tolist(["steelyard"]) && one(aws_lambda_function.gateway[0].image_config).command == tolist(["serve"])
    error_message = "The function starts what a task starts, from the same image."
  }

  assert {
    condition     = one(aws_lambda_function.gateway[0].environment).variables.STEELYARD_ACCESS__REQUIRED == "always" && !contains(keys(one(aws_lambda_function.gateway[0].environment).variables), "STEELYARD_SERVER__HOST")
    error_message = "The function asks for keys, and listens to itself only."
  }

  assert {
    condition     = aws_lambda_function.gateway[0].timeout > var.request_timeout_s
    error_message = "A request's own deadline comes before the function's, so that who is late is told so."
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.floor["morning"].scalable_target_action[0].min_capacity == "4"
    error_message = "The floor rises in the morning."
  }
}

run "refuses_a_tag" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    image = "registry.example/gateway:latest"
  }

  expect_failures = [var.image]
}

run "refuses_no_subnet" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    private_subnet_ids = []
  }

  expect_failures = [var.private_subnet_ids]
}

run "refuses_memory_that_fargate_has_not" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    cpu        = 256
    memory_mib = 8192
  }

  expect_failures = [var.memory_mib]
}

run "refuses_to_scale_to_none" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    tasks = { min = 0, max = 3 }
  }

  expect_failures = [var.tasks]
}

run "refuses_keys_in_the_clear_on_the_internet" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    balancer = { subnet_ids = ["subnet-3", "subnet-4"], allowed_cidrs = ["0.0.0.0/0"] }
  }

  expect_failures = [var.balancer]
}

run "refuses_to_open_the_gateway_to_callers_without_a_key" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    settings = { STEELYARD_INSECURE_NO_AUTH = "true" }
  }

  expect_failures = [var.settings]
}

run "refuses_a_request_that_takes_longer_than_a_task_has_to_stop" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    request_timeout_s = 300
  }

  expect_failures = [var.request_timeout_s]
}

run "refuses_a_target_at_which_requests_are_refused" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    saturation_target = 1
  }

  expect_failures = [var.saturation_target]
}

run "refuses_a_function_whose_image_is_not_in_ecr" {
  command = plan

  module {
    source = "./modules/gateway"
  }

  variables {
    lambda = { image = "registry.example/g@sha256:0000000000000000000000000000000000000000000000000000000000000000" }
  }

  expect_failures = [var.lambda]
}

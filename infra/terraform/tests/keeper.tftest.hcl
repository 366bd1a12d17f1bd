# The ledger is looked after on time, by runs that may add to what was compacted and touch nothing else.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                        = "steelyard-test"
  region                      = "eu-central-1"
  image                       = "registry.example/keeper@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  repository_arn              = "arn:aws:ecr:eu-central-1:123456789012:repository/steelyard-test/keeper"
  cluster                     = "steelyard-test"
  cluster_arn                 = "arn:aws:ecs:eu-central-1:123456789012:cluster/steelyard-test"
  vpc_id                      = "vpc-1"
  subnet_ids                  = ["subnet-1", "subnet-2"]
  endpoints_security_group_id = "sg-endpoints"
  s3_prefix_list_id           = "pl-s3"
  missed_queue_arn            = "arn:aws:sqs:eu-central-1:123456789012:missed"
  store                       = { url = "s3://bucket/team-a", bucket_arn = "arn:aws:s3:::bucket", arn = "arn:aws:s3:::bucket/team-a" }
}

run "runs" {
  command = apply

  module {
    source = "./modules/keeper"
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].user == "65532:65532" && jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].readonlyRootFilesystem
    error_message = "A run is nobody's, on a root that it cannot write."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"] && jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].linuxParameters.initProcessEnabled
    error_message = "A run needs no capability, and must hear that it shall stop."
  }

  assert {
    condition     = length(aws_ecs_task_definition.keeper.ephemeral_storage) == 0
    error_message = "No disk is paid for that is in Fargate's price."
  }

  assert {
    condition     = length(distinct([aws_iam_role.keeper.name, aws_iam_role.execution.name, aws_iam_role.scheduler.name])) == 3
    error_message = "Starting, running and scheduling have a role each."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.internet) == 0 && aws_vpc_security_group_egress_rule.s3.cidr_ipv4 == null && aws_vpc_security_group_egress_rule.endpoints.cidr_ipv4 == null
    error_message = "Runs must not call any address."
  }

  assert {
    condition     = aws_cloudwatch_log_group.keeper.retention_in_days == 30
    error_message = "Logs must not be kept, and paid, for ever."
  }
}

run "schedules" {
  command = apply

  module {
    source = "./modules/keeper"
  }

  assert {
    condition     = { for job, schedule in aws_scheduler_schedule.job : job => schedule.schedule_expression } == { compact = "cron(20 * * * ? *)", verify = "cron(40 3 * * ? *)" }
    error_message = "Hours are compacted when they are closed, everything is verified at night, and without budgets none is checked."
  }

  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.job : schedule.target[0].arn == var.cluster_arn && schedule.target[0].ecs_parameters[0].task_definition_arn == aws_ecs_task_definition.keeper.arn && schedule.state == "ENABLED"])
    error_message = "A schedule starts the keeper's task in the stack's cluster."
  }

  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.job : schedule.target[0].ecs_parameters[0].launch_type == "FARGATE" && !schedule.target[0].ecs_parameters[0].network_configuration[0].assign_public_ip && !coalesce(schedule.target[0].ecs_parameters[0].enable_execute_command, false)])
    error_message = "Runs have no public address, and nobody gets a shell in one."
  }

  assert {
    condition     = { for job, schedule in aws_scheduler_schedule.job : job => join(" ", jsondecode(schedule.target[0].input).containerOverrides[0].command) } == { compact = "ledger compact", verify = "ledger verify" }
    error_message = "Each schedule says its own command."
  }

  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.job : jsondecode(schedule.target[0].input).containerOverrides[0].name == jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].name])
    error_message = "What is overridden must be there."
  }

  assert {
    condition     = alltrue([for schedule in aws_scheduler_schedule.job : schedule.target[0].dead_letter_config[0].arn == var.missed_queue_arn && schedule.target[0].retry_policy[0].maximum_event_age_in_seconds == 600 && schedule.target[0].retry_policy[0].maximum_retry_attempts > 0])
    error_message = "An event that cannot be delivered in ten minutes is kept for somebody to look at."
  }
}

run "rights" {
  command = apply

  module {
    source = "./modules/keeper"
  }

  assert {
    condition     = toset(flatten([for s in data.aws_iam_policy_document.keeper.statement : s.actions])) == toset(["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"])
    error_message = "A run lists, reads and writes objects, and deletes nothing."
  }

  assert {
    condition     = toset(flatten([for s in data.aws_iam_policy_document.keeper.statement : s.resources if contains(s.actions, "s3:PutObject")])) == toset(["arn:aws:s3:::bucket/team-a/compacted/v1/*"])
    error_message = "A run writes what it compacts, and neither the ledger nor, without budgets, alerts."
  }

  assert {
    condition     = toset(flatten([for s in data.aws_iam_policy_document.keeper.statement : [for c in s.condition : "${c.test} ${c.variable} ${join(",", c.values)}"] if contains(s.actions, "s3:PutObject")])) == toset(["Null s3:if-none-match false", "Bool s3:ObjectCreationOperation false"])
    error_message = "What is written once is written with If-None-Match."
  }

  assert {
    condition     = toset(flatten([for s in data.aws_iam_policy_document.keeper.statement : s.resources if contains(s.actions, "s3:GetObject")])) == toset([for p in ["ledger/v1/*", "compacted/v1/*", "prices/*"] : "arn:aws:s3:::bucket/team-a/${p}"])
    error_message = "A run reads the ledger and its prices, and no model, key or run."
  }

  assert {
    condition     = one([for s in data.aws_iam_policy_document.scheduler.statement : s if contains(s.actions, "iam:PassRole")]).resources == toset([aws_iam_role.execution.arn, aws_iam_role.keeper.arn]) && [for c in one([for s in data.aws_iam_policy_document.scheduler.statement : s if contains(s.actions, "iam:PassRole")]).condition : "${c.variable} ${join(",", c.values)}"] == ["iam:PassedToService ecs-tasks.amazonaws.com"]
    error_message = "Schedules pass on exactly the run's two roles, and to ECS only."
  }

  assert {
    condition     = one([for s in data.aws_iam_policy_document.scheduler.statement : s if contains(s.actions, "ecs:RunTask")]).resources == toset(["arn:aws:ecs:eu-central-1:123456789012:task-definition/steelyard-test-keeper:*"]) && one(one([for s in data.aws_iam_policy_document.scheduler.statement : s if contains(s.actions, "ecs:RunTask")]).condition).values == tolist([var.cluster_arn])
    error_message = "Schedules start the keeper's family in the stack's cluster, and nothing else."
  }

  assert {
    condition     = alltrue(flatten([for s in data.aws_iam_policy_document.scheduler.statement : [for r in s.resources : r != "*"]]))
    error_message = "No right of a schedule is about everything."
  }
}

run "budgets_with_a_webhook" {
  command = apply

  module {
    source = "./modules/keeper"
  }

  variables {
    internet    = true
    scratch_gib = 40
    verify      = { enabled = false }
    budgets = {
      text    = "[[budget]]\nid = \"all\"\nperiod = \"month\"\nusd = \"100\"\n"
      secrets = { STEELYARD_WEBHOOK_SECRET = "arn:aws:ssm:eu-central-1:123456789012:parameter/hook" }
    }
  }

  assert {
    condition     = aws_scheduler_schedule.job["budgets"].schedule_expression == "rate(15 minutes)" && jsondecode(aws_scheduler_schedule.job["budgets"].target[0].input).containerOverrides[0].command == ["budgets", "check"]
    error_message = "Budgets are checked every quarter of an hour."
  }

  assert {
    condition     = aws_scheduler_schedule.job["verify"].state == "DISABLED" && aws_scheduler_schedule.job["compact"].state == "ENABLED"
    error_message = "A job that is switched off is switched off, and no other."
  }

  assert {
    condition     = one([for pair in jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].environment : pair.value if pair.name == "STEELYARD_BUDGETS"]) == var.budgets.text
    error_message = "The run must know the budgets."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.keeper.container_definitions)[0].secrets == [{ name = "STEELYARD_WEBHOOK_SECRET", valueFrom = "arn:aws:ssm:eu-central-1:123456789012:parameter/hook" }] && one([for s in data.aws_iam_policy_document.execution.statement : s.resources if s.sid == "Secrets"]) == toset(["arn:aws:ssm:eu-central-1:123456789012:parameter/hook"])
    error_message = "The secret is fetched by what starts the task, and stands in no definition."
  }

  assert {
    condition     = contains(flatten([for s in data.aws_iam_policy_document.keeper.statement : s.resources if s.sid == "Alerts"]), "arn:aws:s3:::bucket/team-a/budgets/v1/*")
    error_message = "That an alert went out is noted in the store."
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.internet[0].from_port == 443 && aws_ecs_task_definition.keeper.ephemeral_storage[0].size_in_gib == 40
    error_message = "A webhook is reached over TLS, and more disk is there when asked for."
  }
}

run "refuses_a_tag" {
  command = plan

  module {
    source = "./modules/keeper"
  }

  variables {
    image = "registry.example/keeper:latest"
  }

  expect_failures = [var.image]
}

run "refuses_a_schedule_that_is_none" {
  command = plan

  module {
    source = "./modules/keeper"
  }

  variables {
    compact = { schedule = "20 * * * *" }
    verify  = { schedule = "rate(0 days)" }
  }

  expect_failures = [var.compact, var.verify]
}

run "refuses_the_name_of_a_file_for_its_text" {
  command = plan

  module {
    source = "./modules/keeper"
  }

  variables {
    budgets = { text = "budgets.toml" }
  }

  expect_failures = [var.budgets]
}

run "refuses_a_secret_in_the_clear" {
  command = plan

  module {
    source = "./modules/keeper"
  }

  variables {
    budgets = { text = "[[budget]]", secrets = { STEELYARD_WEBHOOK_SECRET = "hunter2" } }
  }

  expect_failures = [var.budgets]
}

run "refuses_no_subnet" {
  command = plan

  module {
    source = "./modules/keeper"
  }

  variables {
    subnet_ids = []
  }

  expect_failures = [var.subnet_ids]
}

run "refuses_memory_that_fargate_has_not" {
  command = plan

  module {
    source = "./modules/keeper"
  }

  variables {
    cpu        = 256
    memory_mib = 4096
  }

  expect_failures = [var.memory_mib]
}

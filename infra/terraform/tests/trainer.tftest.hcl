# Jobs run on spot machines of several types, may write their own things once, and are tried again for the machine's faults only.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                        = "steelyard-test"
  region                      = "eu-central-1"
  vpc_id                      = "vpc-1"
  subnet_ids                  = ["subnet-1", "subnet-2"]
  endpoints_security_group_id = "sg-endpoints"
  s3_prefix_list_id           = "pl-s3"
  store                       = { url = "s3://bucket/team-a", bucket_arn = "arn:aws:s3:::bucket", arn = "arn:aws:s3:::bucket/team-a" }
  jobs = {
    nightly = {
      recipe   = "flights"
      image    = "registry.example/train@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      gpu      = 1
      schedule = { expression = "cron(0 3 * * ? *)", timezone = "Europe/Paris" }
    }
    by_hand = {
      recipe = "my_package.recipes:churn"
      image  = "registry.example/train@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      prefer = "on_demand"
    }
  }
}

run "machines" {
  command = apply

  module {
    source = "./modules/trainer"
  }

  assert {
    condition     = alltrue([for e in aws_batch_compute_environment.this : e.compute_resources[0].min_vcpus == 0 && e.compute_resources[0].max_vcpus <= 32])
    error_message = "Without a job nothing must be paid, and with many not more than was allowed."
  }

  assert {
    condition     = aws_batch_compute_environment.this["spot"].compute_resources[0].type == "SPOT" && length(aws_batch_compute_environment.this["spot"].compute_resources[0].instance_type) >= 2
    error_message = "Spot capacity is looked for among several types."
  }

  assert {
    condition     = [for o in aws_batch_job_queue.spot.compute_environment_order : o.order] == [1, 2] && length(aws_batch_job_queue.on_demand.compute_environment_order) == 1
    error_message = "The spot queue falls back to ordinary machines."
  }

  assert {
    condition     = aws_launch_template.jobs.metadata_options[0].http_tokens == "required" && aws_launch_template.jobs.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "The machine's role must be out of a container's reach."
  }

  assert {
    condition     = aws_launch_template.jobs.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "Disks are encrypted."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.jobs_internet) == 0 && aws_vpc_security_group_egress_rule.jobs_s3.cidr_ipv4 == null && aws_vpc_security_group_egress_rule.jobs_endpoints.cidr_ipv4 == null
    error_message = "Jobs must not call any address unless asked to."
  }
}

run "rights" {
  command = apply

  module {
    source = "./modules/trainer"
  }

  assert {
    condition     = alltrue(flatten([for s in data.aws_iam_policy_document.job.statement : [for r in s.resources : !strcontains(r, "/keys/") && !strcontains(r, "/spend/") && r != "*"]]))
    error_message = "Who may call, and what he spent, is none of a job's business."
  }

  assert {
    condition     = alltrue([for s in data.aws_iam_policy_document.job.statement : length(s.condition) == 1 || s.sid == "Move" if contains(s.actions, "s3:PutObject")])
    error_message = "A job writes once, sends parts, or moves what moves."
  }

  assert {
    condition     = toset(flatten([for s in data.aws_iam_policy_document.job.statement : [for c in s.condition : "${c.test} ${c.variable} ${join(",", c.values)}"] if contains(s.actions, "s3:PutObject")])) == toset(["Null s3:if-none-match false", "Bool s3:ObjectCreationOperation false"])
    error_message = "What is written once is written with If-None-Match."
  }

  assert {
    condition     = alltrue(flatten([for s in data.aws_iam_policy_document.job.statement : [for r in s.resources : startswith(r, "arn:aws:s3:::bucket/team-a/runs/")] if contains(s.actions, "s3:DeleteObject")]))
    error_message = "A job deletes nothing but what runs left."
  }

  assert {
    condition     = alltrue(flatten([for s in data.aws_iam_policy_document.job.statement : [for r in s.resources : !strcontains(r, "/ledger/v1/") || endswith(r, "/ledger/v1/training/*")]]))
    error_message = "A job must not touch what gateways account for."
  }

  assert {
    condition     = length(distinct([aws_iam_role.job.name, aws_iam_role.execution.name, aws_iam_role.machine.name, aws_iam_role.batch.name, aws_iam_role.scheduler.name])) == 5
    error_message = "Batch, machines, starting, jobs and schedules have a role each."
  }
}

run "jobs" {
  command = apply

  module {
    source = "./modules/trainer"
  }

  assert {
    condition = [for rule in aws_batch_job_definition.job["nightly"].retry_strategy[0].evaluate_on_exit : coalesce(rule.on_status_reason, rule.on_exit_code, rule.on_reason)] == ["Host EC2*", "75", "143", "CannotPullContainer*", "*"] && (
    [for rule in aws_batch_job_definition.job["nightly"].retry_strategy[0].evaluate_on_exit : upper(rule.action)] == ["RETRY", "RETRY", "RETRY", "RETRY", "EXIT"])
    error_message = "A job is tried again when its machine went away or it asks for it, and for nothing else."
  }

  assert {
    condition     = aws_batch_job_definition.job["nightly"].timeout[0].attempt_duration_seconds == 23760
    error_message = "An attempt that hangs must end, a tenth after it should have stopped itself."
  }

  assert {
    condition     = keys(aws_scheduler_schedule.job) == ["nightly"]
    error_message = "A job without a schedule starts by hand only."
  }

  assert {
    condition     = aws_scheduler_schedule.job["nightly"].target[0].dead_letter_config[0].arn == aws_sqs_queue.missed.arn && aws_scheduler_schedule.job["nightly"].target[0].retry_policy[0].maximum_event_age_in_seconds == 600
    error_message = "An event that cannot be delivered in ten minutes is kept for somebody to look at."
  }

  assert {
    condition     = strcontains(aws_scheduler_schedule.job["nightly"].target[0].input, "\"<aws.scheduler.scheduled-time>\"")
    error_message = "EventBridge must find what it replaces by the time."
  }
}

run "refuses_no_subnet" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    subnet_ids = []
  }

  expect_failures = [var.subnet_ids]
}

run "refuses_a_single_instance_type" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    instance_types = ["g5.xlarge"]
  }

  expect_failures = [var.instance_types]
}

run "refuses_a_job_with_a_tag" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    jobs = { a = { recipe = "flights", image = "registry.example/train:latest" } }
  }

  expect_failures = [var.jobs]
}

run "refuses_five_fields" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    jobs = { a = { recipe = "flights", image = "r/t@sha256:0000000000000000000000000000000000000000000000000000000000000000", schedule = { expression = "0 3 * * 1" } } }
  }

  expect_failures = [var.jobs]
}

run "refuses_a_moment_that_has_passed" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    jobs = { a = { recipe = "flights", image = "r/t@sha256:0000000000000000000000000000000000000000000000000000000000000000", schedule = { expression = "at(2024-02-29T03:00:00)" } } }
  }

  expect_failures = [var.jobs]
}

run "refuses_a_day_that_no_calendar_has" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    jobs = { a = { recipe = "flights", image = "r/t@sha256:0000000000000000000000000000000000000000000000000000000000000000", schedule = { expression = "at(2099-02-30T03:00:00)" } } }
  }

  expect_failures = [var.jobs]
}

run "refuses_a_year_that_is_over" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    jobs = { a = { recipe = "flights", image = "r/t@sha256:0000000000000000000000000000000000000000000000000000000000000000", schedule = { expression = "cron(0 3 1 1 ? 2024)" } } }
  }

  expect_failures = [var.jobs]
}

run "takes_a_moment_to_come" {
  command = plan

  module {
    source = "./modules/trainer"
  }

  variables {
    jobs = { a = { recipe = "flights", image = "r/t@sha256:0000000000000000000000000000000000000000000000000000000000000000", schedule = { expression = "at(2099-02-28T03:00:00)" } } }
  }
}

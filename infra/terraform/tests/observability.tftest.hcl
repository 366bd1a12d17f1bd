# Somebody is told of what he can do something about, and the ledger's tables are those of infra/athena.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name              = "steelyard-test"
  region            = "eu-central-1"
  stack_tag         = "steelyard-test"
  alarm_emails      = ["somebody@example.com"]
  budget_usd        = 300
  missed_queue_name = "missed"
  bucket            = "bucket"
  root              = "team-a/"
  results_bucket    = "bucket-logs"
  gateway = {
    cluster  = "steelyard-test"
    service  = "gateway"
    balancer = { arn_suffix = "app/a/1", target_arn_suffix = "targetgroup/a/1" }
    metrics  = { namespace = "Steelyard/steelyard-test", names = { saturation = "Saturation", in_flight = "InFlight", shed = "Shed", release_problems = "ReleaseProblems", ledger_failures = "LedgerFailures" } }
  }
}

run "alarms" {
  command = apply

  module {
    source = "./modules/observability"
  }

  assert {
    condition     = alltrue([for alarm in merge(aws_cloudwatch_metric_alarm.this, { failed = aws_cloudwatch_metric_alarm.failed_job }) : length(alarm.alarm_actions) == 1 && length(alarm.alarm_description) > 20])
    error_message = "An alarm must tell somebody what to look at."
  }

  assert {
    condition     = length(setintersection(keys(aws_cloudwatch_metric_alarm.this), ["missed-schedule", "no-gateway", "shedding", "saturated", "release", "ledger"])) == 6
    error_message = "A missed schedule, no gateway, refusals, a release that is not followed and a ledger that is not written are alarms."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-gateway"].treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.this["silent"].treat_missing_data == "breaching"
    error_message = "Silence is no good news about gateways."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["slow"].extended_statistic == "p99" && aws_cloudwatch_metric_alarm.this["slow"].statistic == null
    error_message = "Slowness is seen at the 99th percentile."
  }

  assert {
    condition     = aws_budgets_budget.this[0].limit_amount == "300.0" && toset([for n in aws_budgets_budget.this[0].notification : n.notification_type]) == toset(["ACTUAL", "FORECASTED"])
    error_message = "The budget speaks before the money is gone."
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == null
    error_message = "With AWS's own key alarms would reach nobody."
  }

  assert {
    condition     = one(aws_budgets_budget.this[0].cost_filter).values == tolist(["user:stack$steelyard-test"])
    error_message = "The budget must count what carries this stack's tag."
  }
}

run "alarm_of_the_keeper" {
  command = apply

  module {
    source = "./modules/observability"
  }

  variables {
    keeper_family = "steelyard-test-keeper"
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.failed_keeper[0].alarm_actions) == 1 && aws_cloudwatch_metric_alarm.failed_keeper[0].metric_name == aws_cloudwatch_log_metric_filter.failed_keeper[0].metric_transformation[0].name
    error_message = "Somebody is told of a ledger that is not whole, and of a budget that is crossed."
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.failed_keeper[0].event_pattern).detail.taskDefinitionArn == [{ wildcard = "*:task-definition/steelyard-test-keeper:*" }] && jsondecode(aws_cloudwatch_event_rule.failed_keeper[0].event_pattern).detail["$or"][0].containers.exitCode == [{ anything-but = [0] }]
    error_message = "Every end but a good one counts, of the keeper and of nothing else."
  }

  assert {
    condition     = aws_cloudwatch_event_target.failed_keeper[0].arn == aws_cloudwatch_log_group.failed_job.arn && aws_cloudwatch_log_metric_filter.failed_keeper[0].log_group_name == aws_cloudwatch_log_group.failed_job.name
    error_message = "Events must arrive where they are counted."
  }
}

run "tables" {
  command = apply

  module {
    source = "./modules/observability"
  }

  assert {
    condition     = length(setsubtract(["charges", "postings", "requests", "segments"], keys(aws_glue_catalog_table.ledger))) == 0
    error_message = "Every statement in infra/athena is a table."
  }

  assert {
    condition     = alltrue([for table in aws_glue_catalog_table.ledger : [for key in table.partition_keys : key.name] == ["dt", "hr"] && startswith(table.storage_descriptor[0].location, "s3://bucket/team-a/compacted/v1/")])
    error_message = "Tables lie in the store, by day and hour."
  }

  assert {
    condition     = alltrue([for table in aws_glue_catalog_table.ledger : table.parameters["projection.enabled"] == "true" && alltrue([for key in ["dt", "hr"] : contains(keys(table.parameters), "projection.${key}.range")])])
    error_message = "Athena computes where a partition lies, and nothing must be registered."
  }

  assert {
    condition     = { for c in aws_glue_catalog_table.ledger["charges"].storage_descriptor[0].columns : c.name => c.type }["quantity"] == "decimal(38,0)"
    error_message = "Types are those of the statement."
  }

  assert {
    condition     = aws_glue_catalog_table.ledger["requests"].storage_descriptor[0].columns[0].name == "id"
    error_message = "What a comment says in backticks is no column."
  }

  assert {
    condition     = aws_athena_workgroup.ledger.configuration[0].bytes_scanned_cutoff_per_query == 10737418240 && aws_athena_workgroup.ledger.configuration[0].enforce_workgroup_configuration
    error_message = "No query may read, and cost, more than it was allowed to."
  }
}

run "refuses_a_budget_that_tells_nobody" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    alarm_emails = []
  }

  expect_failures = [aws_budgets_budget.this]
}

# The six modules together, and what an operator's commands are told about them.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name     = "steelyard-test"
  region   = "eu-central-1"
  bucket   = "steelyard-test-store"
  network  = { zones = ["eu-central-1a", "eu-central-1b"] }
  gateway  = { image = "registry.example/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000" }
  balancer = { allowed_cidrs = ["203.0.113.0/24"] }
}

run "whole" {
  command = apply

  assert {
    condition     = output.environment["AWS_REGION"] == "eu-central-1" && startswith(output.environment["STEELYARD_STORE"], "s3://") && !contains(keys(output.environment), "AWS_ENDPOINT_URL")
    error_message = "Commands must find the store, and AWS itself where no emulator is named."
  }

  assert {
    condition     = alltrue([for field in ["QUEUE_SPOT", "QUEUE_ON_DEMAND", "QUEUE_SUPERVISOR", "JOB_ROLE_ARN", "EXECUTION_ROLE_ARN", "LOG_GROUP", "SCHEDULER_ROLE_ARN", "DEAD_LETTER_ARN"] : try(length(output.environment["STEELYARD_BATCH_${field}"]) > 0, false)])
    error_message = "The launcher must find its queues and roles."
  }

  assert {
    condition     = startswith(output.gateway.url, "http://")
    error_message = "Without a certificate the address says so."
  }

  assert {
    condition     = output.keeper == null && length(module.keeper) == 0
    error_message = "The keeper is there when asked for."
  }
}

run "with_a_keeper" {
  command = apply

  variables {
    keeper = { image = "registry.example/keeper@sha256:0000000000000000000000000000000000000000000000000000000000000000" }
  }

  assert {
    condition     = keys(output.keeper.schedules) == ["compact", "verify"]
    error_message = "An image is all that must be said for the ledger to be compacted and verified."
  }
}

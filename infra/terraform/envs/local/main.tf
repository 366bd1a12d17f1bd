# The same stack against an emulator of the AWS API on this machine (moto's server): what `make infra-test` applies and destroys.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region                      = var.region
  access_key                  = "local"
  secret_key                  = "local"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  s3_use_path_style           = true
  max_retries                 = 2 # an API that an emulator lacks is said at once, not after minutes

  default_tags {
    tags = { stack = "steelyard-local", project = "steelyard" }
  }

  endpoints {
    applicationautoscaling = var.endpoint_url
    athena                 = var.endpoint_url
    batch                  = var.endpoint_url
    budgets                = var.endpoint_url
    cloudwatch             = var.endpoint_url
    ec2                    = var.endpoint_url
    ecr                    = var.endpoint_url
    ecs                    = var.endpoint_url
    elbv2                  = var.endpoint_url
    events                 = var.endpoint_url
    glue                   = var.endpoint_url
    iam                    = var.endpoint_url
    lambda                 = var.endpoint_url
    logs                   = var.endpoint_url
    s3                     = var.endpoint_url
    scheduler              = var.endpoint_url
    sns                    = var.endpoint_url
    sqs                    = var.endpoint_url
    sts                    = var.endpoint_url
  }
}

module "steelyard" {
  source = "../.."

  name         = "steelyard-local"
  region       = var.region
  bucket       = var.bucket
  destroyable  = true
  log_days     = 1
  network      = { zones = ["${var.region}a", "${var.region}b"] }
  endpoint_url = var.endpoint_url

  gateway = {
    image  = var.gateway_image
    tasks  = { min = 1, max = 3 }
    floors = { morning = { schedule = "cron(0 7 ? * MON-FRI *)", timezone = "Europe/Paris", min = 2 } }
    spot   = { on_demand_base = 1, weight = 1 }
    lambda = var.lambda_image == null ? null : { image = var.lambda_image }
  }

  balancer = {
    internal            = true
    allowed_cidrs       = ["10.0.0.0/8"]
    deletion_protection = false
  }

  trainer = { supervisor_image = var.supervisor_image }
  keeper  = var.keeper
  jobs    = var.jobs
  alarms  = { emails = ["somebody@example.com"] }
}

# A stack that people rely on: three zones, at least two gateways that no spot notice takes, TLS, alarms that reach somebody.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # terraform init -backend-config="bucket=..." -backend-config="region=..."
  backend "s3" {
    key          = "steelyard/prod.tfstate"
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = { stack = "steelyard-prod", project = "steelyard" }
  }
}

module "steelyard" {
  source = "../.."

  name        = "steelyard-prod"
  region      = var.region
  bucket      = var.bucket
  kms_key_arn = var.kms_key_arn
  log_days    = 365
  network     = { zones = var.zones, endpoint_zones = length(var.zones), nat = var.nat }

  gateway = {
    image        = var.gateway_image
    architecture = var.architecture
    cpu          = 2048
    memory_mib   = 4096
    tasks        = var.tasks
    floors       = var.floors
    spot         = { on_demand_base = 2, weight = var.spot_weight }
    lambda       = var.lambda_image == null ? null : { image = var.lambda_image }
  }

  balancer = {
    allowed_cidrs   = var.allowed_cidrs
    certificate_arn = var.certificate_arn
  }

  trainer = {
    vcpus_max        = var.vcpus_max
    supervisor_image = var.supervisor_image
    data_arns        = var.data_arns
  }

  keeper = var.keeper
  jobs   = var.jobs
  alarms = { emails = var.alarm_emails, budget_usd = var.budget_usd, latency_objective_ms = var.latency_objective_ms }
}

# A stack to try things on: one small gateway, spot wherever there is some, nothing that must survive.

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
    key          = "steelyard/dev.tfstate"
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = { stack = "steelyard-dev", project = "steelyard" }
  }
}

module "steelyard" {
  source = "../.."

  name        = "steelyard-dev"
  region      = var.region
  bucket      = var.bucket
  destroyable = true
  log_days    = 7
  network     = { zones = var.zones, nat = var.nat }

  gateway = {
    image        = var.gateway_image
    architecture = var.architecture
    cpu          = 512
    memory_mib   = 1024
    tasks        = { min = 1, max = 3 }
    spot         = { on_demand_base = 0, weight = 4 }
    lambda       = var.lambda_image == null ? null : { image = var.lambda_image }
  }

  balancer = {
    internal            = var.certificate_arn == null
    allowed_cidrs       = var.allowed_cidrs
    certificate_arn     = var.certificate_arn
    deletion_protection = false
  }

  trainer = {
    vcpus_max        = { spot = 8, on_demand = 4, small = 2 }
    supervisor_image = var.supervisor_image
    data_arns        = var.data_arns
  }

  keeper = var.keeper
  jobs   = var.jobs
  alarms = { emails = var.alarm_emails, budget_usd = var.budget_usd }
}

# Steelyard on AWS: the six modules and how they hang together. envs/ are roots over this; another root may use it the same way.

module "artifacts" {
  source = "./modules/artifacts"

  name        = var.name
  bucket      = var.bucket
  prefix      = var.prefix
  kms_key_arn = var.kms_key_arn
  log_days    = var.log_days
  destroyable = var.destroyable
}

module "network" {
  source = "./modules/network"

  name           = var.name
  region         = var.region
  cidr           = var.network.cidr
  zones          = var.network.zones
  endpoint_zones = var.network.endpoint_zones
  nat            = var.network.nat
  log_days       = var.log_days
  kms_key_arn    = var.kms_key_arn

  # Images and logs for everything; the rest is what machines of Batch and its supervisor call.
  endpoint_services = ["ecr.api", "ecr.dkr", "logs", "ecs", "ecs-agent", "ecs-telemetry", "batch"]
}

locals {
  store = {
    url         = module.artifacts.store
    bucket_arn  = module.artifacts.bucket_arn
    arn         = module.artifacts.store_arn
    kms_key_arn = var.kms_key_arn
  }
}

module "gateway" {
  source = "./modules/gateway"

  name                        = var.name
  region                      = var.region
  image                       = var.gateway.image
  repository_arn              = module.artifacts.repositories["gateway"].arn
  architecture                = var.gateway.architecture
  cpu                         = var.gateway.cpu
  memory_mib                  = var.gateway.memory_mib
  scratch_gib                 = var.gateway.scratch_gib
  tasks                       = var.gateway.tasks
  floors                      = var.gateway.floors
  spot                        = var.gateway.spot
  saturation_target           = var.gateway.saturation_target
  cpu_target_percent          = var.gateway.cpu_target_percent
  request_timeout_s           = var.gateway.request_timeout_s
  linger_s                    = var.gateway.linger_s
  settings                    = var.gateway.settings
  lambda                      = var.gateway.lambda
  vpc_id                      = module.network.vpc_id
  private_subnet_ids          = module.network.private_subnet_ids
  balancer                    = merge(var.balancer, { subnet_ids = var.balancer.internal ? module.network.private_subnet_ids : module.network.public_subnet_ids })
  endpoints_security_group_id = module.network.endpoints_security_group_id
  s3_prefix_list_id           = module.network.s3_prefix_list_id
  store                       = local.store
  logs_bucket                 = module.artifacts.logs_bucket
  log_days                    = var.log_days
  endpoint_url                = var.endpoint_url
}

module "trainer" {
  source = "./modules/trainer"

  name                        = var.name
  region                      = var.region
  vpc_id                      = module.network.vpc_id
  subnet_ids                  = module.network.private_subnet_ids
  endpoints_security_group_id = module.network.endpoints_security_group_id
  s3_prefix_list_id           = module.network.s3_prefix_list_id
  internet                    = module.network.nat
  instance_types              = var.trainer.instance_types
  small_instance_types        = var.trainer.small_instance_types
  vcpus_max                   = var.trainer.vcpus_max
  spot_queue_falls_back       = var.trainer.spot_queue_falls_back
  disk_gib                    = var.trainer.disk_gib
  data_arns                   = var.trainer.data_arns
  supervisor_image            = var.trainer.supervisor_image
  repository_arn              = module.artifacts.repositories["trainer"].arn
  store                       = local.store
  jobs                        = var.jobs
  log_days                    = var.log_days
  endpoint_url                = var.endpoint_url
}

module "keeper" {
  source = "./modules/keeper"
  count  = var.keeper == null ? 0 : 1

  name                        = var.name
  region                      = var.region
  image                       = var.keeper.image
  repository_arn              = module.artifacts.repositories["keeper"].arn
  architecture                = var.gateway.architecture
  cpu                         = var.keeper.cpu
  memory_mib                  = var.keeper.memory_mib
  scratch_gib                 = var.keeper.scratch_gib
  compact                     = var.keeper.compact
  verify                      = var.keeper.verify
  budgets                     = var.keeper.budgets
  cluster                     = module.gateway.cluster
  cluster_arn                 = module.gateway.cluster_arn
  vpc_id                      = module.network.vpc_id
  subnet_ids                  = module.network.private_subnet_ids
  endpoints_security_group_id = module.network.endpoints_security_group_id
  s3_prefix_list_id           = module.network.s3_prefix_list_id
  internet                    = module.network.nat
  store                       = local.store
  missed_queue_arn            = module.trainer.missed_queue_arn
  log_days                    = var.log_days
  endpoint_url                = var.endpoint_url
}

module "observability" {
  source = "./modules/observability"

  name                 = var.name
  region               = var.region
  stack_tag            = var.name
  alarm_emails         = var.alarms.emails
  budget_usd           = var.alarms.budget_usd
  latency_objective_ms = var.alarms.latency_objective_ms
  missed_queue_name    = module.trainer.missed_queue_name
  keeper_family        = one(module.keeper[*].family)
  bucket               = module.artifacts.bucket
  root                 = module.artifacts.root
  results_bucket       = module.artifacts.logs_bucket
  kms_key_arn          = var.kms_key_arn

  gateway = {
    cluster  = module.gateway.cluster
    service  = module.gateway.service
    balancer = module.gateway.balancer
    metrics  = module.gateway.metrics
  }
}

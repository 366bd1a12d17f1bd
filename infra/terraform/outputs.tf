output "environment" {
  description = "What `steelyard --from-terraform` sets: every variable that a command on an operator's machine needs."
  value = merge(
    {
      AWS_REGION         = var.region
      AWS_DEFAULT_REGION = var.region # what boto3 reads
      STEELYARD_STORE    = module.artifacts.store
    },
    { for field, value in module.trainer.site : "STEELYARD_BATCH_${upper(field)}" => value },
    var.endpoint_url == null ? {} : { AWS_ENDPOINT_URL = var.endpoint_url },
  )
}

output "gateway" {
  description = "Where the gateway is, and by which names AWS knows it."
  value = {
    url                 = module.gateway.url
    lambda_url          = module.gateway.lambda_url
    cluster             = module.gateway.cluster
    service             = module.gateway.service
    task_definition_arn = module.gateway.task_definition_arn
    role_arn            = module.gateway.role_arn
    log_group           = module.gateway.log_group
    metrics             = module.gateway.metrics
  }
}

output "trainer" {
  description = "The jobs' role, definitions and schedules."
  value = {
    role_arn            = module.trainer.job_role_arn
    job_definition_arns = module.trainer.job_definition_arns
    schedules           = module.trainer.schedules
    missed_queue        = module.trainer.missed_queue_name
  }
}

output "keeper" {
  description = "The keeper's roles, task definition, schedules and log; null where there is none."
  value = one([for keeper in module.keeper : {
    role_arn            = keeper.role_arn
    scheduler_role_arn  = keeper.scheduler_role_arn
    task_definition_arn = keeper.task_definition_arn
    schedules           = keeper.schedules
    log_group           = keeper.log_group
  }])
}

output "artifacts" {
  description = "The store's bucket, and where images are pushed to."
  value = {
    bucket       = module.artifacts.bucket
    repositories = { for name, repository in module.artifacts.repositories : name => repository.url }
  }
}

output "observability" {
  description = "Where alarms go, the dashboard, and where the ledger is asked in SQL."
  value = {
    topic_arn = module.observability.topic_arn
    dashboard = module.observability.dashboard
    database  = module.observability.database
    workgroup = module.observability.workgroup
  }
}

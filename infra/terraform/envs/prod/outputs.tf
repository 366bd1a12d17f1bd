output "environment" {
  description = "What `steelyard --from-terraform` sets."
  value       = module.steelyard.environment
}

output "gateway" {
  description = "Where the gateway is, and by which names AWS knows it."
  value       = module.steelyard.gateway
}

output "trainer" {
  description = "The jobs' role, definitions and schedules."
  value       = module.steelyard.trainer
}

output "keeper" {
  description = "The keeper's roles, task definition, schedules and log; null where there is none."
  value       = module.steelyard.keeper
}

output "artifacts" {
  description = "The store's bucket, and where images are pushed to."
  value       = module.steelyard.artifacts
}

output "observability" {
  description = "Where alarms go, the dashboard, and where the ledger is asked in SQL."
  value       = module.steelyard.observability
}

output "topic_arn" {
  description = "Where alarms go; subscribe what else shall know."
  value       = aws_sns_topic.alarms.arn
}

output "database" {
  description = "Glue database of the ledger's tables."
  value       = aws_glue_catalog_database.ledger.name
}

output "workgroup" {
  description = "Athena workgroup that asks them."
  value       = aws_athena_workgroup.ledger.name
}

output "dashboard" {
  description = "Name of the dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

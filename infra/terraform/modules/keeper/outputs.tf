output "role_arn" {
  description = "The role that runs act in."
  value       = aws_iam_role.keeper.arn
}

output "scheduler_role_arn" {
  description = "The role that starts runs."
  value       = aws_iam_role.scheduler.arn
}

output "task_definition_arn" {
  description = "The task definition of a run."
  value       = aws_ecs_task_definition.keeper.arn
}

output "family" {
  description = "The task definition's family, by which events name runs."
  value       = aws_ecs_task_definition.keeper.family
}

output "schedules" {
  description = "Names of the schedules by job."
  value       = { for job, schedule in aws_scheduler_schedule.job : job => schedule.name }
}

output "log_group" {
  description = "Log group of the runs."
  value       = aws_cloudwatch_log_group.keeper.name
}

output "site" {
  description = "What the launcher reads as STEELYARD_BATCH_...: the fields of trainers/launch/site.py."
  value = {
    queue_spot         = aws_batch_job_queue.spot.name
    queue_on_demand    = aws_batch_job_queue.on_demand.name
    queue_supervisor   = aws_batch_job_queue.small.name
    job_role_arn       = aws_iam_role.job.arn
    execution_role_arn = aws_iam_role.execution.arn
    log_group          = aws_cloudwatch_log_group.jobs.name
    scheduler_role_arn = aws_iam_role.scheduler.arn
    dead_letter_arn    = aws_sqs_queue.missed.arn
  }
}

output "job_role_arn" {
  description = "The role that jobs act in."
  value       = aws_iam_role.job.arn
}

output "job_definition_arns" {
  description = "Job definitions by the name of the job."
  value       = { for name, definition in aws_batch_job_definition.job : name => definition.arn }
}

output "schedules" {
  description = "Names of the schedules by the name of the job."
  value       = { for name, schedule in aws_scheduler_schedule.job : name => schedule.name }
}

output "missed_queue_name" {
  description = "Name of the queue of events that could not be delivered."
  value       = aws_sqs_queue.missed.name
}

output "missed_queue_arn" {
  description = "ARN of that queue, for other schedules of the stack."
  value       = aws_sqs_queue.missed.arn
}

output "log_group" {
  description = "Log group of the jobs."
  value       = aws_cloudwatch_log_group.jobs.name
}

output "url" {
  description = "Where callers send requests. With a certificate, use its name and not the load balancer's."
  value       = "${local.is_tls ? "https" : "http"}://${aws_lb.this.dns_name}"
}

output "lambda_url" {
  description = "Where callers of the function send signed requests; null without one."
  value       = var.lambda == null ? null : aws_lambda_function_url.gateway[0].function_url
}

output "cluster" {
  description = "Name of the ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "cluster_arn" {
  description = "ARN of the ECS cluster."
  value       = aws_ecs_cluster.this.arn
}

output "service" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.gateway.name
}

output "task_definition_arn" {
  description = "The task definition that the service runs."
  value       = aws_ecs_task_definition.gateway.arn
}

output "role_arn" {
  description = "The role that gateways act in."
  value       = aws_iam_role.gateway.arn
}

output "log_group" {
  description = "The gateway's log group."
  value       = aws_cloudwatch_log_group.gateway.name
}

output "balancer" {
  description = "Names by which CloudWatch knows the load balancer and its target group."
  value       = { arn_suffix = aws_lb.this.arn_suffix, target_arn_suffix = aws_lb_target_group.gateway.arn_suffix }
}

output "metrics" {
  description = "Namespace of the gateway's figures, and their names by field."
  value       = { namespace = local.namespace, names = { for field, figure in local.figures : field => figure.metric } }
}

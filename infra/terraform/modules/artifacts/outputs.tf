output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.store.id
}

output "bucket_arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.store.arn
}

output "store_arn" {
  description = "ARN under which every key of the store lies, without a slash at its end."
  value       = trimsuffix("${aws_s3_bucket.store.arn}/${local.root}", "/")
}

output "root" {
  description = "The store's prefix in the bucket: empty, or ending with a slash."
  value       = local.root
}

output "store" {
  description = "What --store takes."
  value       = "s3://${aws_s3_bucket.store.id}${var.prefix == "" ? "" : "/${var.prefix}"}"
}

output "immutable" {
  description = "Patterns of the keys that are written once."
  value       = local.immutable
}

output "logs_bucket" {
  description = "Name of the bucket for access logs; whoever writes there waits for its policy."
  value       = aws_s3_bucket.logs.id
  depends_on  = [aws_s3_bucket_policy.logs]
}

output "kms_key_arn" {
  description = "The bucket's key, or null."
  value       = var.kms_key_arn
}

output "repositories" {
  description = "Where images are pushed to, and the repositories' ARNs."
  value       = { for name, repository in aws_ecr_repository.image : name => { url = repository.repository_url, arn = repository.arn } }
}

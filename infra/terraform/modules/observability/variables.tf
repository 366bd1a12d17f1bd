variable "name" {
  description = "Prefix of every name."
  type        = string
  nullable    = false
}

variable "region" {
  description = "Region that the dashboard's metrics are of."
  type        = string
  nullable    = false
}

variable "alarm_emails" {
  description = "Who is told; each must confirm once."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for email in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", email))])
    error_message = "alarm_emails must be e-mail addresses."
  }
}

variable "budget_usd" {
  description = "What the stack may cost in a month before somebody is told; 0 is no budget. Told at 80 % and when the forecast passes it."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.budget_usd >= 0
    error_message = "budget_usd must be 0 or more."
  }
}

variable "stack_tag" {
  description = "Value of the tag `stack` that everything of this stack carries; activate it as a cost allocation tag for the budget to see it."
  type        = string
  nullable    = false
}

variable "gateway" {
  description = "Names of the gateway's cluster, service, load balancer and metrics."
  type = object({
    cluster  = string
    service  = string
    balancer = object({ arn_suffix = string, target_arn_suffix = string })
    metrics  = object({ namespace = string, names = map(string) })
  })
  nullable = false
}

variable "latency_objective_ms" {
  description = "The 99th percentile of answers that is alarmed on."
  type        = number
  default     = 1000
  nullable    = false

  validation {
    condition     = var.latency_objective_ms > 0
    error_message = "latency_objective_ms must be more than 0."
  }
}

variable "missed_queue_name" {
  description = "Queue of schedule events that could not be delivered."
  type        = string
  nullable    = false
}

variable "keeper_family" {
  description = "Family of the keeper's task definition; null where there is no keeper."
  type        = string
  default     = null
}

variable "bucket" {
  description = "Bucket of the store."
  type        = string
  nullable    = false
}

variable "root" {
  description = "The store's prefix in the bucket: empty, or ending with a slash."
  type        = string
  nullable    = false
}

variable "results_bucket" {
  description = "Bucket that takes the results of queries, and forgets them with the logs."
  type        = string
  nullable    = false
}

variable "kms_key_arn" {
  description = "KMS key of the topic and of logs, which CloudWatch must be let use; null leaves the topic to SNS."
  type        = string
  default     = null
}

variable "query_bytes_max" {
  description = "How much one query over the ledger may read; Athena charges $5 a TB."
  type        = number
  default     = 10737418240
  nullable    = false

  validation {
    condition     = var.query_bytes_max >= 10485760
    error_message = "query_bytes_max must be at least 10485760, which is Athena's smallest."
  }
}

variable "name" {
  description = "Prefix of every name, such as steelyard-dev."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 lower-case letters, digits and hyphens, beginning with a letter: longer ones do not fit into the names of load balancers."
  }
}

variable "bucket" {
  description = "Name of the bucket that holds models, runs and the ledger. Bucket names are global: choose one that nobody has."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,55}[a-z0-9]$", var.bucket)) && !startswith(var.bucket, "xn--")
    error_message = "bucket must be 3 to 57 lower-case letters, digits and hyphens (S3 takes 63, and '-logs' is added for the second bucket). Dots are refused: they break TLS."
  }
}

variable "prefix" {
  description = "Where in the bucket the store lies, such as team-a; empty is the bucket's root."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.prefix == "" || can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.prefix))
    error_message = "prefix must be path segments of letters, digits, '_' and '-', without a slash at either end."
  }
}

variable "kms_key_arn" {
  description = "KMS key that encrypts the bucket; null uses keys of S3's own (SSE-S3), which cost nothing per request."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID."
  }
}

variable "noncurrent_days" {
  description = "How long replaced and deleted objects can be brought back."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days must be a whole number of days, at least 1."
  }
}

variable "log_days" {
  description = "How long access logs of the bucket and of the load balancer are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.log_days >= 1 && floor(var.log_days) == var.log_days
    error_message = "log_days must be a whole number of days, at least 1."
  }
}

variable "destroyable" {
  description = "Whether destroy may delete buckets and repositories that are not empty. Never where anybody's models are."
  type        = bool
  default     = false
  nullable    = false
}

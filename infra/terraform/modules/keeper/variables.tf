variable "name" {
  description = "Prefix of every name."
  type        = string
  nullable    = false
}

variable "region" {
  description = "Region that runs work in."
  type        = string
  nullable    = false
}

variable "image" {
  description = "Image of the keeper with its digest (make image IMAGE=keeper): DuckDB is not in the gateway's."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[^@\\s]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must be named with its digest, NAME@sha256:...: a tag may be another image when a task starts."
  }
}

variable "repository_arn" {
  description = "The ECR repository that images come from; null where they come from elsewhere."
  type        = string
  default     = null
}

variable "architecture" {
  description = "X86_64 or ARM64; the image must be built for it."
  type        = string
  default     = "X86_64"
  nullable    = false

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture must be X86_64 or ARM64."
  }
}

variable "cpu" {
  description = "CPU units of a run: 1024 is one vCPU."
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu must be one that Fargate has: 256, 512, 1024, 2048 or 4096."
  }
}

variable "memory_mib" {
  description = "Memory of a run. Reports over a month of a hundred million requests stayed below 440 MB."
  type        = number
  default     = 2048
  nullable    = false

  validation {
    condition = try(contains({
      "256"  = [512, 1024, 2048]
      "512"  = [for gib in range(1, 5) : gib * 1024]
      "1024" = [for gib in range(2, 9) : gib * 1024]
      "2048" = [for gib in range(4, 17) : gib * 1024]
      "4096" = [for gib in range(8, 31) : gib * 1024]
    }[tostring(var.cpu)], var.memory_mib), false)
    error_message = "memory_mib must be one that Fargate has for this cpu: 256 takes 512, 1024 or 2048; 512 takes 1 to 4 GiB, 1024 2 to 8, 2048 4 to 16, 4096 8 to 30."
  }
}

variable "scratch_gib" {
  description = "Disk of a run, for copies of the ledger: all of it where it is verified. 20 GiB are in Fargate's price."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.scratch_gib >= 20 && var.scratch_gib <= 200 && floor(var.scratch_gib) == var.scratch_gib
    error_message = "scratch_gib must be 20 to 200: what Fargate has."
  }
}

variable "compact" {
  description = "When closed hours become Parquet. An hour is closed 15 minutes after its end, so a little later than that is best. Times are UTC."
  type        = object({ enabled = optional(bool, true), schedule = optional(string, "cron(20 * * * ? *)") })
  default     = {}
  nullable    = false

  validation {
    condition = anytrue([
      can(regex("^cron\\(\\S+ \\S+ (\\? \\S+ \\S+|\\S+ \\S+ \\?) \\S+\\)$", var.compact.schedule)),
      can(regex("^rate\\([1-9][0-9]* (minutes?|hours?|days?)\\)$", var.compact.schedule)),
    ])
    error_message = "compact: a schedule is cron(minute hour day month weekday year) with '?' for one of the days, or rate(N minutes|hours|days)."
  }
}

variable "verify" {
  description = "When everything in the ledger is verified. Times are UTC."
  type        = object({ enabled = optional(bool, true), schedule = optional(string, "cron(40 3 * * ? *)") })
  default     = {}
  nullable    = false

  validation {
    condition = anytrue([
      can(regex("^cron\\(\\S+ \\S+ (\\? \\S+ \\S+|\\S+ \\S+ \\?) \\S+\\)$", var.verify.schedule)),
      can(regex("^rate\\([1-9][0-9]* (minutes?|hours?|days?)\\)$", var.verify.schedule)),
    ])
    error_message = "verify: a schedule is cron(minute hour day month weekday year) with '?' for one of the days, or rate(N minutes|hours|days)."
  }
}

variable "budgets" {
  description = "Budgets as the text of their file (`steelyard budgets --help`), when they are checked, and secrets by the variable that the file's secret_env names (ARNs of SSM parameters or secrets); null checks none. Without a webhook the alarm of a failed run tells that one is crossed."
  type = object({
    text     = string
    enabled  = optional(bool, true)
    schedule = optional(string, "rate(15 minutes)")
    secrets  = optional(map(string), {})
  })
  default = null

  validation {
    condition     = var.budgets == null || can(regex("(?m)^\\s*\\[\\[budget\\]\\]", var.budgets.text))
    error_message = "budgets.text has no [[budget]]: give the text of the file, such as file(\"budgets.toml\"), not its name."
  }

  # A task definition may have 64 KiB in all.
  validation {
    condition     = var.budgets == null || try(length(var.budgets.text) <= 32768, false)
    error_message = "budgets.text must have at most 32768 characters: a task definition holds no more."
  }

  validation {
    condition = var.budgets == null || anytrue([
      can(regex("^cron\\(\\S+ \\S+ (\\? \\S+ \\S+|\\S+ \\S+ \\?) \\S+\\)$", var.budgets.schedule)),
      can(regex("^rate\\([1-9][0-9]* (minutes?|hours?|days?)\\)$", var.budgets.schedule)),
    ])
    error_message = "budgets: a schedule is cron(minute hour day month weekday year) with '?' for one of the days, or rate(N minutes|hours|days)."
  }

  validation {
    condition     = var.budgets == null || alltrue([for name, arn in try(var.budgets.secrets, {}) : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && can(regex("^arn:aws[a-z-]*:(ssm|secretsmanager):", arn))])
    error_message = "budgets.secrets must be ARNs of SSM parameters or of secrets, by names of variables."
  }
}

variable "cluster" {
  description = "Name of the ECS cluster that runs are started in."
  type        = string
  nullable    = false
}

variable "cluster_arn" {
  description = "ARN of that cluster."
  type        = string
  nullable    = false
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
  nullable    = false
}

variable "subnet_ids" {
  description = "Where runs are."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) >= 1
    error_message = "subnet_ids must name at least one subnet."
  }
}

variable "endpoints_security_group_id" {
  description = "The group of the interface endpoints."
  type        = string
  nullable    = false
}

variable "s3_prefix_list_id" {
  description = "S3's addresses."
  type        = string
  nullable    = false
}

variable "internet" {
  description = "Whether there is a way to the internet, for the webhook of budgets: the network's NAT gateway."
  type        = bool
  default     = false
  nullable    = false
}

variable "store" {
  description = "The store: its URL, its bucket's ARN, the ARN under which its keys lie, and the bucket's KMS key or null."
  type        = object({ url = string, bucket_arn = string, arn = string, kms_key_arn = optional(string) })
  nullable    = false
}

variable "missed_queue_arn" {
  description = "Queue of schedule events that could not be delivered."
  type        = string
  nullable    = false
}

variable "log_days" {
  description = "How long logs of runs are kept."
  type        = number
  default     = 30
  nullable    = false
}

variable "endpoint_url" {
  description = "Where the AWS API is instead of AWS, for an emulator; null is AWS."
  type        = string
  default     = null
}

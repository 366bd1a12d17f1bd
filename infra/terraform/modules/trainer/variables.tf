variable "name" {
  description = "Prefix of every name."
  type        = string
  nullable    = false
}

variable "region" {
  description = "Region that jobs work in."
  type        = string
  nullable    = false
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
  nullable    = false
}


variable "subnet_ids" {
  description = "Where jobs run; more zones find more spot capacity."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) >= 1
    error_message = "subnet_ids must name at least one subnet: without any, Batch would accept jobs and start none."
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
  description = "Whether jobs may call HTTPS anywhere, for data from https://; needs the network's NAT gateway."
  type        = bool
  default     = false
  nullable    = false
}

variable "instance_types" {
  description = "GPU instances that jobs may get, of one architecture. More types are interrupted less and found sooner."
  type        = list(string)
  default     = ["g5.xlarge", "g5.2xlarge", "g6.xlarge", "g6.2xlarge", "g4dn.xlarge", "g4dn.2xlarge"]
  nullable    = false

  validation {
    condition     = length(var.instance_types) >= 2 && alltrue([for type in var.instance_types : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9]+$", type))])
    error_message = "instance_types must be at least two, such as g5.xlarge: spot capacity of a single type is often gone."
  }
}

variable "small_instance_types" {
  description = "Instances without GPU, for small jobs and for the supervisor."
  type        = list(string)
  default     = ["c7i.large", "c6i.large", "m7i.large", "m6i.large"]
  nullable    = false

  validation {
    condition     = length(var.small_instance_types) >= 1 && alltrue([for type in var.small_instance_types : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9]+$", type))])
    error_message = "small_instance_types must be instance types such as c7i.large."
  }
}

variable "vcpus_max" {
  description = "What may run at once, in vCPUs, on each of spot, on-demand and small machines: the upper bound of the bill. Nothing runs, and nothing is billed, while no job waits."
  type        = object({ spot = optional(number, 32), on_demand = optional(number, 16), small = optional(number, 4) })
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for count in values(var.vcpus_max) : count >= 1 && floor(count) == count])
    error_message = "vcpus_max must be whole numbers, at least 1."
  }
}

variable "spot_queue_falls_back" {
  description = "Whether a job of the spot queue gets an on-demand machine at once when all of the spot vCPUs are in use. Without it only market.fallback_on_demand_after of a job moves it."
  type        = bool
  default     = true
  nullable    = false
}

variable "disk_gib" {
  description = "Disk of a machine: the image (some 8 GiB), data and checkpoints."
  type        = number
  default     = 100
  nullable    = false

  validation {
    condition     = var.disk_gib >= 30 && var.disk_gib <= 16000
    error_message = "disk_gib must be 30 to 16000."
  }
}

variable "store" {
  description = "The store: its URL, its bucket's ARN, the ARN under which its keys lie, and the bucket's KMS key or null."
  type        = object({ url = string, bucket_arn = string, arn = string, kms_key_arn = optional(string) })
  nullable    = false
}

variable "data_arns" {
  description = "Objects outside the store that jobs may read, such as arn:aws:s3:::my-data/flights/*."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.data_arns : can(regex("^arn:aws[a-z-]*:s3:::[^*/]+/.+$", arn))])
    error_message = "data_arns must name objects of a bucket, arn:aws:s3:::BUCKET/PREFIX/*."
  }
}

variable "repository_arn" {
  description = "The ECR repository that images come from; null where they come from elsewhere."
  type        = string
  default     = null
}

variable "supervisor_image" {
  description = "Image of the trainers, with digest, that looks after scheduled runs every half an hour; null has nobody look after them."
  type        = string
  default     = null

  validation {
    condition     = var.supervisor_image == null || can(regex("^[^@\\s]+@sha256:[0-9a-f]{64}$", var.supervisor_image))
    error_message = "supervisor_image must be named with its digest, NAME@sha256:..."
  }
}

variable "jobs" {
  description = "Jobs by name, with the meaning of a job.toml; those with a schedule start by themselves. `schedule.expression` is EventBridge's: cron(0 3 ? * MON *), rate(1 day) or at(2027-01-31T03:00:00)."
  type = map(object({
    recipe                   = string
    image                    = string
    params                   = optional(map(string), {})
    cpu                      = optional(number, 2)
    memory_gb                = optional(number, 4)
    shm_gb                   = optional(number, 1)
    gpu                      = optional(number, 0)
    prefer                   = optional(string, "spot")
    fallback_on_demand_after = optional(string)
    wall                     = optional(string, "1d")
    attempt_minutes          = optional(number, 360)
    max_cost_usd             = optional(number)
    promote_to               = optional(string, "champion")
    schedule                 = optional(object({ expression = string, timezone = optional(string, "UTC"), enabled = optional(bool, true) }))
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.jobs) : can(regex("^[a-z0-9][a-z0-9_-]*$", name)) && !startswith(name, "supervisor") && length("${var.name}-${name}") <= 40])
    error_message = "jobs: a name is lower-case letters, digits, '_' and '-', does not begin with 'supervisor', and has with the stack's name before it at most 40 characters."
  }

  validation {
    condition     = alltrue([for job in values(var.jobs) : can(regex("^[^@\\s]+@sha256:[0-9a-f]{64}$", job.image))])
    error_message = "jobs: an image must be named with its digest, NAME@sha256:...: a tag may be another image at the next attempt."
  }

  validation {
    condition     = alltrue([for job in values(var.jobs) : can(regex("^([a-z0-9_]+|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$", job.recipe))])
    error_message = "jobs: a recipe is one that ships with Steelyard, or your own as package.module:function."
  }

  validation {
    condition     = alltrue([for job in values(var.jobs) : contains(["spot", "on_demand"], job.prefer) && contains(["champion", "challenger", "none"], job.promote_to)])
    error_message = "jobs: prefer is spot or on_demand; promote_to is champion, challenger or none."
  }

  validation {
    condition     = alltrue([for job in values(var.jobs) : job.attempt_minutes >= 1 && floor(job.attempt_minutes) == job.attempt_minutes && job.shm_gb < job.memory_gb && job.gpu >= 0 && job.cpu >= 1])
    error_message = "jobs: attempt_minutes is a whole number, shm_gb a part of memory_gb, cpu at least 1."
  }

  validation {
    condition = alltrue([for job in values(var.jobs) : job.schedule == null || anytrue([
      can(regex("^cron\\(\\S+ \\S+ (\\? \\S+ \\S+|\\S+ \\S+ \\?) \\S+\\)$", try(job.schedule.expression, ""))),
      can(regex("^rate\\([1-9][0-9]* (minutes?|hours?|days?)\\)$", try(job.schedule.expression, ""))),
      can(regex("^at\\([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\)$", try(job.schedule.expression, ""))),
    ])])
    error_message = "jobs: a schedule is cron(minute hour day month weekday year) with '?' for one of the days, rate(N minutes|hours|days) or at(yyyy-mm-ddThh:mm:ss)."
  }

  # In a time zone of the far west a moment comes half a day after the same digits in UTC: that much is let through.
  validation {
    condition = alltrue([for job in values(var.jobs) : job.schedule == null || !can(regex("^at\\(.*\\)$", job.schedule.expression)) || try(
      timecmp("${trimsuffix(trimprefix(job.schedule.expression, "at("), ")")}Z", timeadd(plantimestamp(), job.schedule.timezone == "UTC" ? "0s" : "-12h")) > 0, false
    )])
    error_message = "jobs: a schedule at(...) lies in the past, or on a day that no calendar has: it would never start."
  }

  validation {
    condition = alltrue([for job in values(var.jobs) : job.schedule == null || !can(regex("^cron\\(.* [0-9]{4}\\)$", job.schedule.expression)) || try(
      tonumber(regex("([0-9]{4})\\)$", job.schedule.expression)[0]) >= tonumber(formatdate("YYYY", plantimestamp())), false
    )])
    error_message = "jobs: the year of a schedule cron(...) is over: it would never start."
  }
}

variable "log_days" {
  description = "How long logs of jobs are kept in CloudWatch; those of runs are in the store besides."
  type        = number
  default     = 30
  nullable    = false
}

variable "endpoint_url" {
  description = "Where the AWS API is instead of AWS, for an emulator; null is AWS."
  type        = string
  default     = null
}

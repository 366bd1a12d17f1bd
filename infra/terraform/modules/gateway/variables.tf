variable "name" {
  description = "Prefix of every name."
  type        = string
  nullable    = false
}

variable "region" {
  description = "Region that the gateway's S3 client and log driver use."
  type        = string
  nullable    = false
}

variable "image" {
  description = "Image of the gateway with its digest, such as ACCOUNT.dkr.ecr.REGION.amazonaws.com/steelyard-dev/gateway@sha256:..."
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
  description = "CPU units of a task: 1024 is one vCPU."
  type        = number
  default     = 1024
  nullable    = false

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "cpu must be one that Fargate has: 256, 512, 1024, 2048, 4096, 8192 or 16384."
  }
}

variable "memory_mib" {
  description = "Memory of a task."
  type        = number
  default     = 2048
  nullable    = false

  validation {
    condition = try(contains({
      "256"   = [512, 1024, 2048]
      "512"   = [for gib in range(1, 5) : gib * 1024]
      "1024"  = [for gib in range(2, 9) : gib * 1024]
      "2048"  = [for gib in range(4, 17) : gib * 1024]
      "4096"  = [for gib in range(8, 31) : gib * 1024]
      "8192"  = [for gib in range(16, 61, 4) : gib * 1024]
      "16384" = [for gib in range(32, 121, 8) : gib * 1024]
    }[tostring(var.cpu)], var.memory_mib), false)
    error_message = "memory_mib must be one that Fargate has for this cpu: 256 takes 512, 1024 or 2048; 512 takes 1 to 4 GiB, 1024 2 to 8, 2048 4 to 16, 4096 8 to 30, 8192 16 to 60 by fours, 16384 32 to 120 by eights."
  }
}

variable "scratch_gib" {
  description = "Disk of a task: downloaded models and copies of the ledger for the cost page. 20 GiB are in Fargate's price."
  type        = number
  default     = 21
  nullable    = false

  validation {
    condition     = var.scratch_gib >= 21 && var.scratch_gib <= 200 && floor(var.scratch_gib) == var.scratch_gib
    error_message = "scratch_gib must be 21 to 200: what Fargate has."
  }
}

variable "tasks" {
  description = "How many tasks there are at least and at most. Fargate behind a load balancer cannot start from none: nothing would wake it."
  type        = object({ min = number, max = number })
  default     = { min = 1, max = 10 }
  nullable    = false

  validation {
    condition     = var.tasks.min >= 1 && var.tasks.max >= var.tasks.min && floor(var.tasks.min) == var.tasks.min && floor(var.tasks.max) == var.tasks.max
    error_message = "tasks.min must be at least 1, and tasks.max no less than tasks.min."
  }
}

variable "floors" {
  description = "By name: from when on at least so many tasks run, such as { morning = { schedule = \"cron(0 7 ? * MON-FRI *)\", timezone = \"Europe/Paris\", min = 4 } }."
  type        = map(object({ schedule = string, timezone = optional(string, "UTC"), min = number }))
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for floor in values(var.floors) : can(regex("^cron\\(\\S+( \\S+){5}\\)$", floor.schedule))])
    error_message = "floors: a schedule is cron(minute hour day month weekday year), as in cron(0 7 ? * MON-FRI *)."
  }

  validation {
    condition     = alltrue([for floor in values(var.floors) : floor.min >= 1 && floor.min <= var.tasks.max])
    error_message = "floors: min must lie between 1 and tasks.max."
  }
}

variable "saturation_target" {
  description = "How full containers are kept on average; scaling out begins above it. The gauge is steelyard_saturation_ratio, 1 is full."
  type        = number
  default     = 0.6
  nullable    = false

  validation {
    condition     = var.saturation_target > 0 && var.saturation_target < 1
    error_message = "saturation_target must lie between 0 and 1: at 1 requests are refused already."
  }
}

variable "cpu_target_percent" {
  description = "The second policy: mean CPU of all tasks."
  type        = number
  default     = 70
  nullable    = false

  validation {
    condition     = var.cpu_target_percent >= 10 && var.cpu_target_percent <= 95
    error_message = "cpu_target_percent must lie between 10 and 95."
  }
}

variable "spot" {
  description = "Of the tasks beyond on_demand_base, how many run on Fargate Spot for each that does not. { on_demand_base = 1, weight = 0 } uses no spot."
  type        = object({ on_demand_base = optional(number, 1), weight = optional(number, 0) })
  default     = {}
  nullable    = false

  validation {
    condition     = var.spot.on_demand_base >= 0 && var.spot.weight >= 0 && var.spot.weight <= 1000
    error_message = "spot.on_demand_base must be 0 or more, spot.weight 0 to 1000."
  }
}

variable "request_timeout_s" {
  description = "How long one request may take after its body has arrived (the gateway's timeout_s)."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.request_timeout_s >= 1 && var.request_timeout_s <= 60
    error_message = "request_timeout_s must be 1 to 60: a task is given at most 120 s to stop, and a request must fit in."
  }
}

variable "linger_s" {
  description = "How long a stopping task goes on accepting, so that the load balancer notices first."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = var.linger_s >= 0 && var.linger_s <= 20
    error_message = "linger_s must be 0 to 20."
  }
}

variable "settings" {
  description = "More settings of the gateway by their variables, such as { STEELYARD_PRELOAD = \"flights\" }."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^STEELYARD_[A-Z0-9_]+$", name))])
    error_message = "settings must be variables that begin with STEELYARD_."
  }

  validation {
    condition     = !contains(keys(var.settings), "STEELYARD_INSECURE_NO_AUTH")
    error_message = "settings must not open the gateway to callers without a key."
  }
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
  nullable    = false
}

variable "private_subnet_ids" {
  description = "Where tasks run."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.private_subnet_ids) >= 1
    error_message = "private_subnet_ids must name at least one subnet."
  }
}

variable "balancer" {
  description = "Load balancer: its subnets, whether it is internal, who may connect (CIDRs), its certificate (null is plain HTTP), and whether destroy is refused."
  type = object({
    subnet_ids          = list(string)
    internal            = optional(bool, false)
    allowed_cidrs       = list(string)
    certificate_arn     = optional(string)
    deletion_protection = optional(bool, true)
  })
  nullable = false

  validation {
    condition     = length(var.balancer.subnet_ids) >= 2
    error_message = "balancer.subnet_ids must name subnets in two zones."
  }

  validation {
    condition     = length(var.balancer.allowed_cidrs) >= 1 && alltrue([for cidr in var.balancer.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "balancer.allowed_cidrs must be IPv4 ranges such as 203.0.113.0/24, at least one."
  }

  validation {
    condition     = var.balancer.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$", var.balancer.certificate_arn))
    error_message = "balancer.certificate_arn must be the ARN of a certificate of ACM."
  }

  validation {
    condition     = var.balancer.certificate_arn != null || var.balancer.internal || !contains(var.balancer.allowed_cidrs, "0.0.0.0/0")
    error_message = "balancer: without a certificate keys travel in the clear; give one, make it internal, or name who may connect."
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

variable "store" {
  description = "The store: its URL, its bucket's ARN, the ARN under which its keys lie, and the bucket's KMS key or null."
  type        = object({ url = string, bucket_arn = string, arn = string, kms_key_arn = optional(string) })
  nullable    = false
}

variable "logs_bucket" {
  description = "Bucket for the load balancer's access logs."
  type        = string
  nullable    = false
}

variable "log_days" {
  description = "How long the gateway's own log is kept."
  type        = number
  default     = 30
  nullable    = false
}

variable "lambda" {
  description = "The same gateway as a function for little traffic, or null. Its image is the gateway's own, in ECR and for one architecture."
  type = object({
    image           = string
    memory_mib      = optional(number, 1769)
    scratch_mib     = optional(number, 2048)
    concurrency_max = optional(number, 10)
  })
  default = null

  validation {
    condition     = var.lambda == null || can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[^@\\s]+@sha256:[0-9a-f]{64}$", var.lambda.image))
    error_message = "lambda.image must be in ECR, which is all that Lambda reads, and named with its digest: ...@sha256:..."
  }

  validation {
    condition     = var.lambda == null || try(var.lambda.memory_mib >= 256 && var.lambda.memory_mib <= 10240 && var.lambda.scratch_mib >= 512 && var.lambda.scratch_mib <= 10240 && var.lambda.concurrency_max >= 1, false)
    error_message = "lambda: memory_mib is 256 to 10240 (1769 is one vCPU), scratch_mib 512 to 10240, concurrency_max at least 1."
  }
}

variable "endpoint_url" {
  description = "Where the AWS API is instead of AWS, for an emulator; null is AWS."
  type        = string
  default     = null

  validation {
    condition     = var.endpoint_url == null || can(regex("^https?://[^/\\s]+$", var.endpoint_url))
    error_message = "endpoint_url must be an address such as http://127.0.0.1:5000, without a path."
  }
}

variable "name" {
  description = "Prefix of every name, such as steelyard-dev; two stacks in one account need two."
  type        = string
  nullable    = false
}

variable "region" {
  description = "Region of everything."
  type        = string
  nullable    = false
}

variable "bucket" {
  description = "Name of the bucket that holds models, runs and the ledger."
  type        = string
  nullable    = false
}

variable "prefix" {
  description = "Where in the bucket the store lies; empty is the bucket's root."
  type        = string
  default     = ""
  nullable    = false
}

variable "kms_key_arn" {
  description = "KMS key that encrypts the store, images and logs; null uses keys of AWS's own. Its policy must let CloudWatch, CloudWatch Logs and SNS use it."
  type        = string
  default     = null
}

variable "destroyable" {
  description = "Whether destroy may delete the buckets with all that is in them."
  type        = bool
  default     = false
  nullable    = false
}

variable "network" {
  description = "Addresses, zones, in how many of them interface endpoints stand, and whether jobs reach the internet by NAT."
  type = object({
    cidr           = optional(string, "10.42.0.0/16")
    zones          = list(string)
    endpoint_zones = optional(number, 1)
    nat            = optional(bool, false)
  })
  nullable = false
}

variable "gateway" {
  description = "The gateway: see modules/gateway/variables.tf for each."
  type = object({
    image              = string
    architecture       = optional(string, "X86_64")
    cpu                = optional(number, 1024)
    memory_mib         = optional(number, 2048)
    scratch_gib        = optional(number, 21)
    tasks              = optional(object({ min = number, max = number }), { min = 1, max = 10 })
    floors             = optional(map(object({ schedule = string, timezone = optional(string, "UTC"), min = number })), {})
    spot               = optional(object({ on_demand_base = optional(number, 1), weight = optional(number, 0) }), {})
    saturation_target  = optional(number, 0.6)
    cpu_target_percent = optional(number, 70)
    request_timeout_s  = optional(number, 20)
    linger_s           = optional(number, 5)
    settings           = optional(map(string), {})
    lambda = optional(object({
      image           = string
      memory_mib      = optional(number, 1769)
      scratch_mib     = optional(number, 2048)
      concurrency_max = optional(number, 10)
    }))
  })
  nullable = false
}

variable "balancer" {
  description = "The load balancer: whether it is internal, who may connect, its certificate, and whether destroy is refused."
  type = object({
    internal            = optional(bool, false)
    allowed_cidrs       = list(string)
    certificate_arn     = optional(string)
    deletion_protection = optional(bool, true)
  })
  nullable = false
}

variable "trainer" {
  description = "Training: see modules/trainer/variables.tf for each."
  type = object({
    instance_types        = optional(list(string), ["g5.xlarge", "g5.2xlarge", "g6.xlarge", "g6.2xlarge", "g4dn.xlarge", "g4dn.2xlarge"])
    small_instance_types  = optional(list(string), ["c7i.large", "c6i.large", "m7i.large", "m6i.large"])
    vcpus_max             = optional(object({ spot = optional(number, 32), on_demand = optional(number, 16), small = optional(number, 4) }), {})
    spot_queue_falls_back = optional(bool, true)
    disk_gib              = optional(number, 100)
    data_arns             = optional(list(string), [])
    supervisor_image      = optional(string)
  })
  default  = {}
  nullable = false
}

variable "jobs" {
  description = "Jobs by name, with the meaning of a job.toml: see modules/trainer/variables.tf."
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
}

variable "keeper" {
  description = "What looks after the ledger on a schedule: see modules/keeper/variables.tf for each; null is nobody, and hours are never compacted."
  type = object({
    image       = string
    cpu         = optional(number, 512)
    memory_mib  = optional(number, 2048)
    scratch_gib = optional(number, 20)
    compact     = optional(object({ enabled = optional(bool, true), schedule = optional(string, "cron(20 * * * ? *)") }), {})
    verify      = optional(object({ enabled = optional(bool, true), schedule = optional(string, "cron(40 3 * * ? *)") }), {})
    budgets = optional(object({
      text     = string
      enabled  = optional(bool, true)
      schedule = optional(string, "rate(15 minutes)")
      secrets  = optional(map(string), {})
    }))
  })
  default = null
}

variable "log_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_days)
    error_message = "log_days must be one that CloudWatch has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, ..."
  }
}

variable "alarms" {
  description = "Who is told, what a month may cost (0 is no budget), and the 99th percentile that is alarmed on."
  type = object({
    emails               = optional(set(string), [])
    budget_usd           = optional(number, 0)
    latency_objective_ms = optional(number, 1000)
  })
  default  = {}
  nullable = false
}

variable "endpoint_url" {
  description = "Where the AWS API is instead of AWS, for an emulator; null is AWS."
  type        = string
  default     = null
}

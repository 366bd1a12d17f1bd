variable "endpoint_url" {
  description = "Where the emulator listens."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^http://(127\\.0\\.0\\.1|localhost)(:[0-9]+)?$", var.endpoint_url))
    error_message = "endpoint_url must be an address on this machine, such as http://127.0.0.1:5000."
  }
}

variable "region" {
  description = "Region that the emulator shall play."
  type        = string
  default     = "us-east-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[1-9]$", var.region))
    error_message = "region must be one such as us-east-1."
  }
}

variable "bucket" {
  description = "Name of the bucket that holds models, runs and the ledger."
  type        = string
  default     = "steelyard-local"
  nullable    = false
}

variable "gateway_image" {
  description = "What the task definition names; nothing pulls it."
  type        = string
  default     = "registry.example/steelyard/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  nullable    = false
}

variable "lambda_image" {
  description = "What the function names; nothing pulls it. Null is no function."
  type        = string
  default     = null
}

variable "supervisor_image" {
  description = "What the supervisor's job definition names; nothing pulls it. Null is nobody."
  type        = string
  default     = null
}

variable "keeper" {
  description = "What compacts and verifies the ledger and checks budgets, by its image with digest: see modules/keeper/variables.tf; null is nobody."
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

variable "jobs" {
  description = "Jobs by name, with the meaning of a job.toml; those with a schedule start by themselves."
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

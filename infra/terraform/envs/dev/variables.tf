variable "region" {
  description = "Region of everything."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[1-9]$", var.region))
    error_message = "region must be one such as eu-central-1 (an availability zone such as eu-central-1a is none)."
  }
}

variable "account_id" {
  description = "The account that this is meant for; with credentials of another nothing is done."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be 12 digits."
  }
}

variable "bucket" {
  description = "Name of the bucket that holds models, runs and the ledger. Names are global: choose one that nobody has."
  type        = string
  nullable    = false
}

variable "zones" {
  description = "Availability zones of the region, at least 2."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) >= 2 && alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "zones must be at least 2 availability zones of the region."
  }
}

variable "gateway_image" {
  description = "Image of the gateway with its digest."
  type        = string
  nullable    = false
}

variable "architecture" {
  description = "X86_64 or ARM64, as the image was built."
  type        = string
  default     = "X86_64"
  nullable    = false
}

variable "lambda_image" {
  description = "Image of the gateway in ECR, to serve as a function besides; null is none."
  type        = string
  default     = null
}

variable "allowed_cidrs" {
  description = "Who may connect, as IPv4 ranges."
  type        = list(string)
  nullable    = false
}

variable "certificate_arn" {
  description = "Certificate of ACM; without one the load balancer is internal and speaks plain HTTP."
  type        = string
  default     = null
}

variable "nat" {
  description = "Whether jobs reach the internet, for data from https://; a NAT gateway costs about $32 a month."
  type        = bool
  default     = false
  nullable    = false
}

variable "supervisor_image" {
  description = "Image of the trainers, with digest, that looks after scheduled runs; null is nobody."
  type        = string
  default     = null
}

variable "data_arns" {
  description = "Objects outside the store that jobs may read, such as arn:aws:s3:::my-data/flights/*."
  type        = list(string)
  default     = []
  nullable    = false
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

variable "alarm_emails" {
  description = "Who is told of alarms."
  type        = set(string)
  default     = []
  nullable    = false
}

variable "budget_usd" {
  description = "What a month may cost before somebody is told; 0 is no budget."
  type        = number
  default     = 0
  nullable    = false
}

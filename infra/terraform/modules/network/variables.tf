variable "name" {
  description = "Prefix of every name."
  type        = string
  nullable    = false
}

variable "region" {
  description = "Region of the endpoints' service names."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[1-9]$", var.region))
    error_message = "region must be one such as eu-central-1 (an availability zone such as eu-central-1a is none)."
  }
}

variable "cidr" {
  description = "Addresses of the VPC."
  type        = string
  default     = "10.42.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]), 0) >= 16 && try(tonumber(split("/", var.cidr)[1]), 99) <= 20
    error_message = "cidr must be an IPv4 range of /16 to /20: every subnet takes a sixteenth of it."
  }
}

variable "zones" {
  description = "Availability zones; each gets a public subnet for the load balancer and a private one for everything else."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 6
    error_message = "zones must name 2 to 6 availability zones: a load balancer needs subnets in two."
  }

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must not name one twice: a second subnet in the same zone survives nothing."
  }

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]{2}(-[a-z]+)+-[1-9][a-z]$", zone))])
    error_message = "zones must be availability zones such as eu-central-1a."
  }
}

variable "endpoint_zones" {
  description = "In how many zones interface endpoints stand; each costs about $7.3 a month and service. One is enough where an outage of a zone may stop new starts."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.endpoint_zones >= 1 && var.endpoint_zones <= length(var.zones)
    error_message = "endpoint_zones must be 1 to the number of zones."
  }
}

variable "endpoint_services" {
  description = "AWS services that private subnets reach without the internet, beside S3."
  type        = set(string)
  default     = ["ecr.api", "ecr.dkr", "logs"]
  nullable    = false

  validation {
    condition     = alltrue([for service in var.endpoint_services : can(regex("^[a-z0-9.-]+$", service))])
    error_message = "endpoint_services must be names such as ecr.api."
  }
}

variable "nat" {
  description = "Whether private subnets reach the internet, through one NAT gateway ($32 a month and $0.045 a GB). Only for training data from https://."
  type        = bool
  default     = false
  nullable    = false
}

variable "log_days" {
  description = "How long flow logs are kept."
  type        = number
  default     = 30
  nullable    = false
}

variable "kms_key_arn" {
  description = "KMS key of the flow logs; null uses CloudWatch's own."
  type        = string
  default     = null
}

# Where jobs run: spot machines with a GPU, ordinary ones, and small ones without. All of them are started for a job and gone after it.

resource "aws_security_group" "jobs" {
  name        = "${var.name}-jobs"
  description = "Training jobs: called by nobody, call S3 and the interface endpoints"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-jobs" }
}

resource "aws_vpc_security_group_egress_rule" "jobs_s3" {
  security_group_id = aws_security_group.jobs.id
  description       = "The store, data, and the layers of images"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  prefix_list_id    = var.s3_prefix_list_id
}

resource "aws_vpc_security_group_egress_rule" "jobs_endpoints" {
  security_group_id            = aws_security_group.jobs.id
  description                  = "Image registry, logs, ECS and Batch"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = var.endpoints_security_group_id
}

resource "aws_vpc_security_group_egress_rule" "jobs_internet" {
  count = var.internet ? 1 : 0

  security_group_id = aws_security_group.jobs.id
  description       = "Data from https://"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_launch_template" "jobs" {
  name                   = "${var.name}-jobs"
  update_default_version = true

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = var.disk_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  # A hop of one: the machine's own role is out of a container's reach, a job has its own.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = false
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-jobs" }
  }
}

locals {
  # AMIs of Batch's own: they have the driver where there is a GPU.
  environments = {
    spot      = { type = "SPOT", strategy = "SPOT_PRICE_CAPACITY_OPTIMIZED", types = var.instance_types, max = var.vcpus_max.spot, image = "ECS_AL2023_NVIDIA" }
    on-demand = { type = "EC2", strategy = "BEST_FIT_PROGRESSIVE", types = var.instance_types, max = var.vcpus_max.on_demand, image = "ECS_AL2023_NVIDIA" }
    small     = { type = "EC2", strategy = "BEST_FIT_PROGRESSIVE", types = var.small_instance_types, max = var.vcpus_max.small, image = "ECS_AL2023" }
  }
}

resource "aws_batch_compute_environment" "this" {
  for_each = local.environments

  compute_environment_name_prefix = "${var.name}-${each.key}-"
  type                            = "MANAGED"
  service_role                    = aws_iam_role.batch.arn

  compute_resources {
    type                = each.value.type
    allocation_strategy = each.value.strategy
    instance_type       = each.value.types
    min_vcpus           = 0
    max_vcpus           = each.value.max
    subnets             = var.subnet_ids
    security_group_ids  = [aws_security_group.jobs.id]
    instance_role       = aws_iam_instance_profile.machine.arn

    ec2_configuration {
      image_type = each.value.image
    }

    launch_template {
      launch_template_id = aws_launch_template.jobs.id
      version            = "$Latest"
    }
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [compute_resources[0].desired_vcpus] # Batch's to move
  }

  depends_on = [aws_iam_role_policy_attachment.batch]
}

resource "aws_batch_job_queue" "spot" {
  name     = "${var.name}-spot"
  state    = "ENABLED"
  priority = 10

  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.this["spot"].arn
  }

  dynamic "compute_environment_order" {
    for_each = var.spot_queue_falls_back ? [2] : []

    content {
      order               = compute_environment_order.value
      compute_environment = aws_batch_compute_environment.this["on-demand"].arn
    }
  }
}

resource "aws_batch_job_queue" "on_demand" {
  name     = "${var.name}-on-demand"
  state    = "ENABLED"
  priority = 20

  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.this["on-demand"].arn
  }
}

resource "aws_batch_job_queue" "small" {
  name     = "${var.name}-small"
  state    = "ENABLED"
  priority = 30

  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.this["small"].arn
  }
}

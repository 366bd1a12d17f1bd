# The load balancer: refuses what is not clean HTTP, ends TLS, and sends a request to the gateway with the fewest.

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Load balancer: called by those who may, calls gateways"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-balancer" }
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each = toset(var.balancer.allowed_cidrs)

  security_group_id = aws_security_group.balancer.id
  description       = "Callers"
  ip_protocol       = "tcp"
  from_port         = local.listener_port
  to_port           = local.listener_port
  cidr_ipv4         = each.key
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Calls to gateways"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = aws_security_group.gateway.id
}

locals {
  is_tls        = var.balancer.certificate_arn != null
  listener_port = local.is_tls ? 443 : 80
}

resource "aws_lb" "this" {
  name                       = "${var.name}-gw"
  load_balancer_type         = "application"
  internal                   = var.balancer.internal
  subnets                    = var.balancer.subnet_ids
  security_groups            = [aws_security_group.balancer.id]
  idle_timeout               = local.balancer_idle_s
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = var.balancer.deletion_protection

  access_logs {
    bucket  = var.logs_bucket
    prefix  = "alb"
    enabled = true
  }
}

resource "aws_lb_target_group" "gateway" {
  name                          = "${var.name}-gw"
  vpc_id                        = var.vpc_id
  target_type                   = "ip"
  protocol                      = "HTTP"
  port                          = local.port
  deregistration_delay          = local.drain_s
  load_balancing_algorithm_type = "least_outstanding_requests"

  health_check {
    path                = local.health_path
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "gateway" {
  load_balancer_arn = aws_lb.this.arn
  port              = local.listener_port
  protocol          = local.is_tls ? "HTTPS" : "HTTP"
  ssl_policy        = local.is_tls ? "ELBSecurityPolicy-TLS13-1-2-2021-06" : null
  certificate_arn   = var.balancer.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.gateway.arn
  }
}

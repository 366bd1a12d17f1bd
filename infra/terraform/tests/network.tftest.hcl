# Private things have no way out unless asked for, and what a VPC needs is there in two zones.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "steelyard-test"
  region = "eu-central-1"
  zones  = ["eu-central-1a", "eu-central-1b"]
}

run "closed" {
  command = apply

  module {
    source = "./modules/network"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0 && length(aws_eip.nat) == 0
    error_message = "Private subnets must have no route to the internet, and nothing must be paid for one."
  }

  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && one(aws_vpc_endpoint.s3.route_table_ids) == aws_route_table.private.id
    error_message = "S3 is reached by its gateway endpoint, which costs nothing."
  }

  assert {
    condition = alltrue([for s in data.aws_iam_policy_document.s3.statement : s.resources == toset(["arn:aws:s3:::prod-eu-central-1-starport-layer-bucket/*"]) && s.actions == toset(["s3:GetObject"]) ||
    [for c in s.condition : "${c.test} ${c.variable} ${join(",", c.values)}"] == ["StringEquals aws:PrincipalAccount 123456789012"]])
    error_message = "Nothing may be carried out with another account's credentials."
  }

  assert {
    condition     = alltrue([for subnet in merge(aws_subnet.public, { for zone, s in aws_subnet.private : "private-${zone}" => s }) : subnet.map_public_ip_on_launch == false])
    error_message = "Nothing gets a public address by being started."
  }

  assert {
    condition     = length(distinct(concat([for s in aws_subnet.public : s.cidr_block], [for s in aws_subnet.private : s.cidr_block]))) == 4
    error_message = "Subnets must not overlap."
  }

  assert {
    condition     = toset(keys(aws_vpc_endpoint.service)) == toset(["ecr.api", "ecr.dkr", "logs"]) && alltrue([for e in aws_vpc_endpoint.service : e.private_dns_enabled && length(e.subnet_ids) == 1])
    error_message = "Images and logs go through interface endpoints, in one zone unless more are paid for."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == "10.42.0.0/16" && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443
    error_message = "Interface endpoints take HTTPS from inside only."
  }

  assert {
    condition     = length(aws_default_security_group.none.ingress) == 0 && length(aws_default_security_group.none.egress) == 0
    error_message = "The default security group lets nothing pass."
  }

  assert {
    condition     = aws_flow_log.rejected.traffic_type == "REJECT"
    error_message = "What is refused is logged."
  }
}

run "with_nat" {
  command = apply

  module {
    source = "./modules/network"
  }

  variables {
    nat = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && aws_route.nat[0].route_table_id == aws_route_table.private.id
    error_message = "One NAT gateway serves all private subnets."
  }
}

run "refuses_no_zone" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    zones = []
  }

  expect_failures = [var.zones]
}

run "refuses_one_zone_twice" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    zones = ["eu-central-1a", "eu-central-1a"]
  }

  expect_failures = [var.zones]
}

run "refuses_a_zone_for_a_region" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    region = "eu-central-1a"
  }

  expect_failures = [var.region]
}

run "refuses_a_range_that_is_too_small" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    cidr = "10.0.0.0/24"
  }

  expect_failures = [var.cidr]
}

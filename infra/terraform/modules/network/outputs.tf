output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "cidr" {
  description = "Its addresses."
  value       = var.cidr
}

output "public_subnet_ids" {
  description = "One per zone, for load balancers."
  value       = [for zone in var.zones : aws_subnet.public[zone].id]
}

output "private_subnet_ids" {
  description = "One per zone, for everything that runs."
  value       = [for zone in var.zones : aws_subnet.private[zone].id]
}

output "endpoints_security_group_id" {
  description = "The group of the interface endpoints: where private things may send HTTPS."
  value       = aws_security_group.endpoints.id
}

output "s3_prefix_list_id" {
  description = "S3's addresses, for egress rules."
  value       = aws_vpc_endpoint.s3.prefix_list_id
}

output "nat" {
  description = "Whether there is a way to the internet."
  value       = var.nat
}

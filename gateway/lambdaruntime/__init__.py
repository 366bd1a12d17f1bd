"""Lambda calls no server: here the gateway asks Lambda's Runtime API what it is to answer, and has its own listener answer it."""

RUNTIME_API = "AWS_LAMBDA_RUNTIME_API"
"""The variable that Lambda sets, host:port. Without it nothing in this room is used."""

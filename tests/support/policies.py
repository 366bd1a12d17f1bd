"""Whether AWS policies let a request pass: statements, wildcards and the conditions that our Terraform uses, and no others.

A judge for tests, by the rules of the IAM user guide ("Policy evaluation logic", "Condition operators"). An operator that it does
not know is an error, so that no condition is passed over in silence. `tests.support.awsserver` has moto ask it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal  # Any: policies are JSON documents

Verdict = Literal["allow", "deny", "silent"]
Statement = Mapping[str, Any]


def judged(statements: Iterable[Statement], action: str, resource: str, context: Mapping[str, str]) -> Verdict:
    """A denial beats every permission; without either the policy is silent, which is a refusal in the end."""
    effects = {s["Effect"] for s in statements if _concerns(s, action, resource) and is_met(s, context)}
    return "deny" if "Deny" in effects else "allow" if "Allow" in effects else "silent"


def is_allowed(policies: Iterable[Statement], action: str, resource: str, context: Mapping[str, str]) -> bool:
    """What a role may do under all policies that apply to it and to the resource, of one account."""
    statements = [statement for policy in policies for statement in statements_of(policy)]
    return judged(statements, action, resource, context) == "allow"


def statements_of(policy: Mapping[str, Any]) -> list[Statement]:
    found = policy["Statement"]
    return list(found) if isinstance(found, list) else [found]


def put(
    *, if_none_match: bool = False, if_match: bool = False, creates: bool = True, tls: bool = True
) -> dict[str, str]:
    """What S3 knows of a PutObject, of the start of an upload or of one of its parts (those create nothing)."""
    context = {"aws:SecureTransport": str(tls).lower(), "s3:ObjectCreationOperation": str(creates).lower()}
    return (
        context | ({"s3:if-none-match": "*"} if if_none_match else {}) | ({"s3:if-match": "etag"} if if_match else {})
    )


def is_met(statement: Statement, context: Mapping[str, str]) -> bool:
    """All of its conditions."""
    return all(
        _holds(operator, context.get(key), expected)
        for operator, keys in statement.get("Condition", {}).items()
        for key, expected in keys.items()
    )


def _holds(operator: str, actual: str | None, expected: str | list[str]) -> bool:
    values = expected if isinstance(expected, list) else [expected]
    if operator == "Null":
        return ("true" if actual is None else "false") in values
    if actual is None:
        return False
    if operator in {"Bool", "StringEquals", "ArnEquals"}:
        return actual in values
    if operator in {"StringLike", "ArnLike"}:
        return any(_matches(value, actual) for value in values)
    raise NotImplementedError(f"condition operator {operator}")


def _concerns(statement: Statement, action: str, resource: str) -> bool:
    return _any(statement["Action"], action, fold=True) and _any(statement.get("Resource", "*"), resource)


def _any(patterns: str | list[str], text: str, *, fold: bool = False) -> bool:
    return any(
        _matches(pattern.lower(), text.lower()) if fold else _matches(pattern, text)
        for pattern in (patterns if isinstance(patterns, list) else [patterns])
    )


def _matches(pattern: str, text: str) -> bool:
    expression = "".join(".*" if sign == "*" else "." if sign == "?" else re.escape(sign) for sign in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None

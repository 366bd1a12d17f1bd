"""The judge of policies itself: were it generous, every test that asks it would pass."""

import pytest

from tests.support import policies

ARN = "arn:aws:s3:::b/models/m/versions/1.json"
WRITTEN_ONCE = {
    "Effect": "Deny",
    "Action": "s3:PutObject",
    "Resource": ["arn:aws:s3:::b/models/*/versions/*"],
    "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
}
ONLY_TLS = {
    "Effect": "Deny", "Action": "s3:*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}  # fmt: skip
ALLOWED = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::b/models/*"}


@pytest.mark.parametrize(
    ("context", "passes"),
    [
        (policies.put(if_none_match=True), True),
        (policies.put(), False),
        (policies.put(if_match=True), False),
        (policies.put(creates=False), True),  # a part of an upload
        (policies.put(if_none_match=True, tls=False), False),
    ],
)
def test_a_denial_holds_where_all_its_conditions_do(context: dict[str, str], passes: bool) -> None:
    policy = {"Statement": [WRITTEN_ONCE, ONLY_TLS, ALLOWED]}
    assert policies.is_allowed([policy], "s3:PutObject", ARN, context) == passes


def test_what_nobody_allows_is_refused() -> None:
    assert not policies.is_allowed([{"Statement": ALLOWED}], "s3:DeleteObject", ARN, {})
    assert not policies.is_allowed([{"Statement": ALLOWED}], "s3:GetObject", "arn:aws:s3:::b/keys/k.json", {})
    assert not policies.is_allowed([], "s3:GetObject", ARN, {})


def test_a_permission_with_a_condition_needs_it() -> None:
    once = ALLOWED | {"Condition": {"Null": {"s3:if-none-match": "false"}}}
    assert policies.is_allowed([{"Statement": [once]}], "s3:PutObject", ARN, policies.put(if_none_match=True))
    assert not policies.is_allowed([{"Statement": [once]}], "s3:PutObject", ARN, policies.put())


def test_wildcards_match_any_signs_and_a_dot_only_itself() -> None:
    found = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/ledger/v1/dt=*/c?.json"}
    assert policies.judged([found], "s3:GetObject", "arn:aws:s3:::b/ledger/v1/dt=2026/hr=1/c1.json", {}) == "allow"
    assert policies.judged([found], "s3:GetObject", "arn:aws:s3:::b/ledger/v1/dt=2026/hr=1/c1xjson", {}) == "silent"


def test_a_condition_that_is_not_known_is_not_passed_over() -> None:
    unknown = ALLOWED | {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
    with pytest.raises(NotImplementedError, match="IpAddress"):
        policies.judged([unknown], "s3:PutObject", ARN, {"aws:SourceIp": "10.0.0.1"})

"""What the roles of the applied stack may do, and what nobody may: tried with real clients under enforcement of policies."""

from typing import Any

import pytest

from tests.infra.applied import DENIED, refusal
from tests.infra.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("unconfigured")]


def test_the_gateways_role_writes_what_it_measured_and_nothing_else(stack: Stack) -> None:
    keys = stack.account.assume(stack.outputs["gateway"]["role_arn"])
    compacted = "compacted/v1/charges/dt=2026-11-25/hr=10/000001.parquet"
    for name in ("runs/r/run.json", compacted):
        stack.account.client("s3").put_object(Bucket=stack.bucket, Key=name, Body=b"{}", IfNoneMatch="*")
    s3 = stack.account.client("s3", keys)
    segment = "ledger/v1/dt=2026-11-25/hr=10/c/1-000000000001.jsonl.gz"
    with stack.account.asking_for_credentials():
        assert refusal(put(s3, stack), Key=segment, IfNoneMatch="*") == ""
        assert refusal(put(s3, stack), Key=segment) in DENIED, "a write that could replace a segment"
        for name in ("models/m/blobs/sha256/0", "models/m/aliases/champion.json", "keys/k.json", "prices/current.json",
                     "ledger/v1/training/r/0001.json", "runs/r/heartbeat.json", "schedules/s/lease.json"):  # fmt: skip
            assert refusal(put(s3, stack), Key=name, IfNoneMatch="*") in DENIED, name
        assert refusal(s3.get_object, Bucket=stack.bucket, Key=compacted) == "", "the page /costs reads it"
        assert refusal(s3.get_object, Bucket=stack.bucket, Key="runs/r/run.json") in DENIED
        assert refusal(s3.delete_object, Bucket=stack.bucket, Key=segment) in DENIED
        assert (
            refusal(s3.put_bucket_versioning, Bucket=stack.bucket, VersioningConfiguration={"Status": "Suspended"})
            in DENIED
        )
        assert refusal(s3.delete_bucket_policy, Bucket=stack.bucket) in DENIED
        assert refusal(stack.account.client("iam", keys).list_roles) in DENIED
        batch = stack.account.client("batch", keys)
        assert refusal(batch.submit_job, jobName="j", jobQueue="q", jobDefinition="d") in DENIED


def test_a_jobs_role_publishes_once_and_sees_no_keys(stack: Stack) -> None:
    keys = stack.account.assume(stack.outputs["trainer"]["role_arn"])
    owner = stack.account.client("s3")
    owner.put_object(Bucket=stack.bucket, Key="keys/secret.json", Body=b"{}", IfNoneMatch="*")
    s3 = stack.account.client("s3", keys)
    blob = "models/m/blobs/sha256/1"
    with stack.account.asking_for_credentials():
        assert refusal(put(s3, stack), Key=blob) in DENIED, "without If-None-Match"
        assert refusal(put(s3, stack), Key=blob, IfNoneMatch="*") == ""
        assert refusal(put(s3, stack), Key=blob, IfNoneMatch="*") == "PreconditionFailed"
        assert refusal(put(s3, stack), Key="models/m/aliases/champion.json") in DENIED, "without either condition"
        assert refusal(put(s3, stack), Key="models/m/aliases/champion.json", IfNoneMatch="*") == ""
        assert uploaded_in_parts(s3, stack, "models/m/blobs/sha256/2", IfNoneMatch="*") == ""
        assert uploaded_in_parts(s3, stack, "models/m/blobs/sha256/3") in DENIED
        assert refusal(s3.get_object, Bucket=stack.bucket, Key="keys/secret.json") in DENIED
        assert refusal(put(s3, stack), Key="keys/mine.json", IfNoneMatch="*") in DENIED
        assert (
            refusal(put(s3, stack), Key="ledger/v1/dt=2026-11-25/hr=10/c/1-000000000002.jsonl.gz", IfNoneMatch="*")
            in DENIED
        )
        assert refusal(s3.delete_object, Bucket=stack.bucket, Key=blob) in DENIED
        assert refusal(s3.delete_object, Bucket=stack.bucket, Key="runs/r/checkpoints/1-1/facts.json") == ""


def test_not_even_the_owner_replaces_what_was_written_once(stack: Stack) -> None:
    owner = stack.account.client("s3")
    assert refusal(put(owner, stack), Key="models/m/versions/1.json") in DENIED
    assert refusal(put(owner, stack), Key="models/m/versions/1.json", IfNoneMatch="*") == ""
    assert refusal(put(owner, stack), Key="models/m/versions/1.json", IfMatch="x") in DENIED


def put(s3: Any, stack: Stack) -> Any:
    return lambda **arguments: s3.put_object(Bucket=stack.bucket, Body=b"x", **arguments)


def uploaded_in_parts(s3: Any, stack: Stack, key: str, **condition: str) -> str:
    """Starting and sending parts must pass; the refusal of what creates the object."""
    at = {"Bucket": stack.bucket, "Key": key}
    upload = at | {"UploadId": s3.create_multipart_upload(**at)["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    return refusal(s3.complete_multipart_upload, **upload, MultipartUpload=parts, **condition)

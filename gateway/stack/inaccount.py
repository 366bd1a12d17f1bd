"""What stands against a plan in the account it is for: who asks, region and zones, taken buckets, missing images."""

import re
from collections.abc import Iterator, Sequence

from gateway.errors import SettingsError
from gateway.stack.account import GIVE_CREDENTIALS, NO_CREDENTIALS, Account, Caller
from gateway.stack.changes import PINNED, Change, Image, Provider
from gateway.stack.finding import Finding
from gateway.stack.plan import Resource

ECR = re.compile(
    r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[^@:\s]+)(?::[^@\s]+)?@(?P<digest>sha256:[0-9a-f]{64})"
)


def refused(problem: SettingsError, region: str) -> Finding:
    """Without an answer of STS nothing can be applied, whatever the reason."""
    what = str(problem)
    if what.startswith(NO_CREDENTIALS):
        do = GIVE_CREDENTIALS
    elif "refused" in what:
        do = f"the credentials are wrong or have expired, or {region} is not enabled for their account (Account, AWS Regions)"
    else:
        do = f"is {region or 'it'} the right region, and is there a way to AWS from here?"
    return Finding("stop", "credentials", what, do)


def identity(caller: Caller, provider: Provider) -> Iterator[Finding]:
    """Whether we are in the account that the plan is meant for."""
    if provider.account_ids and caller.account_id not in provider.account_ids:
        yield Finding(
            "stop",
            "credentials",
            f"you are {caller.arn}, and this plan is for account {', '.join(provider.account_ids)}",
            "use credentials of that account, or correct account_id",
        )
        return
    yield Finding("ok", "credentials", f"you are {caller.arn}")
    if provider.assumes_role:
        yield Finding(
            "cannot tell",
            "credentials",
            "the plan's provider takes on a role",
            "what follows was asked as you; ask again with credentials of that role",
        )


def region(account: Account, provider: Provider) -> Finding:
    """Whether the caller's settings mean the plan's region: images are pushed and keys are made by them."""
    if not provider.region:
        what = f"the plan's provider does not say its region; asked was {account.region}"
        return Finding("cannot tell", "region", what, "name it in the provider, by a variable")
    if account.own_region and account.own_region != provider.region:
        return Finding(
            "stop",
            "region",
            f"the plan is for {provider.region}, and your AWS settings say {account.own_region}",
            f"correct region, or set AWS_REGION={provider.region}: pushed images and new keys follow your settings",
        )
    return Finding("ok", "region", f"everything is made in {provider.region}")


def zones(account: Account, planned: Sequence[Resource]) -> Iterator[Finding]:
    """Whether the region has the zones, for this account."""
    subnets = (found.values for found in planned if found.type == "aws_subnet")
    wanted = {zone for values in subnets if (zone := values.get("availability_zone"))}
    if not wanted:
        return
    try:
        there = account.zones()
    except SettingsError as problem:
        yield Finding("cannot tell", "zones", str(problem), f"are {', '.join(sorted(wanted))} in {account.region}?")
        return
    if missing := sorted(wanted - there):
        what = f"{account.region} has no {', '.join(missing)} for your account"
        yield Finding("stop", "zones", what, f"choose among {', '.join(sorted(there)) or 'none: the region is wrong'}")
    else:
        yield Finding("ok", "zones", f"{', '.join(sorted(wanted))} are there")


def buckets(account: Account, caller: Caller, found: Sequence[Change]) -> Iterator[Finding]:
    """A line for each bucket that would be made. All are asked, so that not the second one stops a half-made stack."""
    for change in found:
        if change.type != "aws_s3_bucket" or not change.creates:
            continue
        name = change.after.get("bucket")
        if not name:
            yield Finding("cannot tell", "bucket", f"{change.address}: its name is known after apply")
        elif name != change.before.get("bucket"):
            yield _bucket(account, caller, name)


def _bucket(account: Account, caller: Caller, name: str) -> Finding:
    try:
        whose = account.bucket(name, caller.account_id)
    except SettingsError as problem:
        return Finding(
            "cannot tell", "bucket", f"{name}: {problem}", f"ask yourself: aws s3api head-bucket --bucket {name}"
        )
    if whose == "free":
        return Finding("ok", "bucket", f"{name} is free")
    if whose == "ours":
        return Finding(
            "stop",
            "bucket",
            f"{name} is there already, in your own account, and not in this state",
            "choose another name, or take it in (terraform import); whatever is in it would be this stack's to destroy",
        )
    return Finding(
        "stop",
        "bucket",
        f"{name} is taken: by another account, or by yours without the right to see it (s3:ListBucket)",
        "names are global; choose another bucket",
    )


def images(account: Account, caller: Caller, found: Sequence[Image], made: Sequence[Change]) -> Iterator[Finding]:
    """A line for each image. `made` are the plan's changes: a repository that it makes is empty."""
    new = {change.after.get("name") for change in made if change.type == "aws_ecr_repository" and change.creates}
    for image in found:
        if not PINNED.fullmatch(image.name):
            yield _unusable(image, "it has no digest", "name it as NAME@sha256:...: a tag may move")
            continue
        named = ECR.fullmatch(image.name)
        if named is None or named["account"] != caller.account_id:
            what = f"{_at(image)} is not in this account's registry"
            do = "tasks have no way out but to ECR; make sure that they may pull it"
            yield Finding("cannot tell", "image", what, do)
        elif named["region"] != account.region:
            do = f"push it to {account.region}: endpoints lead to that registry alone"
            yield _unusable(image, f"it is in another region than {account.region}", do)
        elif named["repository"] in new:
            do = "apply the module artifacts by itself, push the image, then plan the rest (infra/terraform/README.md)"
            yield _unusable(image, "this plan only makes its repository", do)
        else:
            yield _asked(account, image, named["repository"], named["digest"])


def _asked(account: Account, image: Image, repository: str, digest: str) -> Finding:
    try:
        answer = account.image(repository, digest)
    except SettingsError as problem:
        return Finding("cannot tell", "image", f"{_at(image)}: {problem}", "make sure that it was pushed")
    if answer == "there":
        return Finding("ok", "image", f"{_at(image)} is there")
    missing = "there is no such repository" if answer == "no repository" else "the repository has no such digest"
    return _unusable(image, missing, "push it, or correct the digest (aws ecr describe-images)")


def _unusable(image: Image, why: str, do: str) -> Finding:
    return Finding("stop", "image", f"{_at(image)}: {why}", do)


def _at(image: Image) -> str:
    return f"{image.name} ({image.where})"

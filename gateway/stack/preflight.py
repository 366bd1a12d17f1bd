"""`steelyard infra check`: every reason not to apply a plan that can be known before, asked for by reading only.

The plan comes first, the account second: who has no credentials still hears what is wrong with the plan itself.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.errors import SettingsError
from gateway.stack import changes, inaccount, inplan
from gateway.stack.account import GIVE_CREDENTIALS, NO_CREDENTIALS, Account
from gateway.stack.changes import Provider
from gateway.stack.finding import Finding, stops
from gateway.stack.plan import load, resources_of

NOT_ASKED = Finding(
    "cannot tell", "account", "region, zones, buckets and images were not asked for", "ask again after that"
)


def planned(place: Path) -> dict[str, Any]:
    """As `gateway.stack.plan.load`, with a sentence of our own where the provider had nobody to plan as."""
    try:
        return load(place)
    except SettingsError as error:
        if "No valid credential sources found" in str(error):
            raise SettingsError(f"{place}: {NO_CREDENTIALS} to plan with; {GIVE_CREDENTIALS}") from error
        raise


def check(plan: dict[str, Any], environ: Mapping[str, str], now: datetime) -> Iterator[Finding]:
    """The findings, as they are known."""
    found, there = changes.changes(plan), resources_of(plan)
    if plan.get("errored"):
        yield Finding("stop", "plan", "Terraform could not finish this plan", "plan again, and read what it says")
    yield from inplan.losses(found)
    yield from inplan.subnets(there)
    yield from inplan.schedules(there, now)
    yield from _in_account(plan, changes.provider(plan), environ)


def _in_account(plan: dict[str, Any], provider: Provider, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        account = Account(provider, environ)
        caller = account.caller()
    except SettingsError as problem:
        yield inaccount.refused(problem, provider.region)
        yield NOT_ASKED
        return
    who = list(inaccount.identity(caller, provider))
    yield from who
    if stops(who):
        yield NOT_ASKED
        return
    found, there = changes.changes(plan), resources_of(plan)
    yield inaccount.region(account, provider)
    yield from inaccount.zones(account, there)
    yield from inaccount.buckets(account, caller, found)
    yield from inaccount.images(account, caller, changes.images(plan), found)

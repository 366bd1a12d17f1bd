"""What one question to a plan found, and all of them on a terminal or as JSON. `gateway.stack.preflight` asks; the CLI prints."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

Verdict = Literal["ok", "stop", "cannot tell"]


class Finding(msgspec.Struct, frozen=True):
    """`about` is the subject (credentials, region, bucket ...), `what` a sentence, `do` what to do about it, or empty."""

    verdict: Verdict
    about: str
    what: str
    do: str = ""


def stops(found: Sequence[Finding]) -> bool:
    """Whether anything says that the plan must not be applied."""
    return any(each.verdict == "stop" for each in found)


def show(found: Sequence[Finding], say: Callable[[str], None]) -> None:
    """A line each, and what it comes to."""
    for each in found:
        said = f"{each.what}: {each.do}" if each.do else each.what
        say(f"{each.verdict:<12} {each.about:<12} {said}")
    stopping, unknown = (sum(each.verdict == verdict for each in found) for verdict in ("stop", "cannot tell"))
    rest = f"; {unknown} cannot be told from here" if unknown else ""
    say(
        f"\n{stopping} of {len(found)} checks stop: do not apply this{rest}"
        if stopping
        else f"\nnothing stops it{rest}"
    )


def as_json(found: Sequence[Finding]) -> dict[str, Any]:
    """For programs."""
    return {"stop": stops(found), "checks": [msgspec.structs.asdict(each) for each in found]}

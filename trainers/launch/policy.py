"""When another attempt is worth it: one rule for the local launcher, AWS Batch and Kubernetes. Pure.

Retried: 75, 143 and death by a signal, for the machine went away and not the job. Everything else would end the same way again.
"""

from typing import Any  # Any: request payloads as boto3 takes them

import msgspec

from trainers import exits

ATTEMPTS_MAX = 10
"""AWS Batch's own limit (RegisterJobDefinition, retryStrategy.attempts); what takes more is the supervisor's to resubmit."""

ATTEMPT_HEADROOM = 0.10
"""An attempt stops itself at limits.attempt; the launcher kills it this much later, should it hang."""


LATE_S_MAX = 600
"""A scheduled run that could not start for ten minutes is left out: `catch_up` is none. Without this limit a CronJob whose
controller was away for 100 starts never starts again, and EventBridge would deliver a day late."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often, and after which ends."""

    attempts: int = ATTEMPTS_MAX
    retried: tuple[int, ...] = exits.RETRIED

    def is_worth_retrying(self, code: int) -> bool:
        """`code` as `subprocess` gives it (-9) or as a shell does (137)."""
        return code in self.retried or code < 0 or code > 128


def killed_after_s(attempt_s: int) -> int:
    """When the launcher ends an attempt that should have stopped itself after `attempt_s`."""
    return attempt_s + -(-attempt_s // round(1 / ATTEMPT_HEADROOM))


def batch_retry_strategy(policy: RetryPolicy) -> dict[str, Any]:
    """For AWS Batch, where the first matching rule of at most five wins and no match means another attempt: so EXIT ends the list.

    The text of a reclaimed spot machine is "Host EC2 (instance i-...) terminated."; only a trailing `*` is a wildcard.
    """
    rules: list[dict[str, str]] = [{"onStatusReason": "Host EC2*", "action": "RETRY"}]
    rules += [{"onExitCode": str(code), "action": "RETRY"} for code in policy.retried]
    rules += [{"onReason": "CannotPullContainer*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    return {"attempts": policy.attempts, "evaluateOnExit": rules}

"""What a training process's exit code means, and which code an error gets. Launchers decide by it whether to try again.

One table for all: the command line exits with `code_of(error)`, `trainers.launch.policy` retries what is worth it. The codes are
those of sysexits.h where it has one that fits.
"""

import asyncio

from gateway import errors as store_errors
from trainers import errors

DONE = 0
BAD_SPEC = 64
BAD_DATA = 65
BAD_MODEL = 66
BUG = 70
BUDGET = 73
RETRY = 75
STOPPED = 143

MEANING = {
    DONE: "done; also when the gates said no, for a decision is no failure",
    BAD_SPEC: "the spec, a setting or the command line is wrong",
    BAD_DATA: "the data is missing, changed or not what was declared",
    BAD_MODEL: "the model is invalid, cannot be exported, or passes no gate",
    BUG: "a defect, here or in the recipe",
    BUDGET: "the cost cap is spent; the best so far was exported",
    RETRY: "retry: the store or the machine failed, not the job",
    STOPPED: "stopped by SIGTERM after a checkpoint was saved",
}

FINAL = (BAD_SPEC, BAD_DATA, BAD_MODEL, BUG, BUDGET)
"""The same attempt would end the same way: never retried."""

RETRIED = (RETRY, STOPPED)

CODES: dict[type[BaseException], int] = {
    errors.SpecError: BAD_SPEC,
    errors.DataError: BAD_DATA,
    errors.ExportError: BAD_MODEL,
    errors.ModelInvalid: BAD_MODEL,
    errors.GateFailed: BAD_MODEL,
    errors.PublishConflict: RETRY,
    errors.BudgetReached: BUDGET,
    errors.OutOfMemory: BUG,
    errors.LauncherUnavailable: RETRY,
    errors.LeaseLost: RETRY,
    asyncio.CancelledError: RETRY,  # what a lost lease does to the attempt
    # Somebody else's attempt is at work, or nobody's shall be: trying again would fence the one, or never end.
    errors.Fenced: DONE,
    errors.Cancelled: DONE,
    errors.HostDiffers: RETRY,
    errors.Unsaved: RETRY,
    errors.Preempted: STOPPED,
    store_errors.RequestError: BAD_SPEC,
    store_errors.Unavailable: RETRY,
    # A store that is not there, or refuses these credentials, will do so at the next attempt too.
    store_errors.BucketNotFound: BAD_SPEC,
    store_errors.StoreRefused: BAD_SPEC,
    store_errors.StoreReadOnly: BAD_SPEC,
    store_errors.ObjectNotFound: BAD_DATA,
    store_errors.PreconditionFailed: RETRY,
    store_errors.ReleaseConflict: RETRY,
    store_errors.ArtifactError: BAD_MODEL,
    store_errors.DigestMismatch: BAD_DATA,
    store_errors.SettingsError: BAD_SPEC,
}
"""A class that is not here has the code of its nearest parent that is; what has none is a defect."""


def code_of(error: BaseException) -> int:
    """What the process exits with."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), BUG)


def meaning(code: int) -> str:
    """A few words for a person; a negative code is a signal's number, as `subprocess` says it."""
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        return MEANING.get(code, f"killed by signal {number}")
    return MEANING.get(code, "an exit code that a training job does not use")

"""Exit codes: every error has one on purpose, and the retry rules say the same in every launcher's words."""

import signal
from collections.abc import Iterator

import pytest

from gateway import errors as store_errors
from trainers import errors, exits
from trainers.launch import policy

ROOTS = (errors.TrainerError, store_errors.GatewayError)


def family(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from family(child)


ALL = [kind for root in ROOTS for kind in family(root) if kind.__module__.endswith(".errors")]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_or_of_its_family(kind: type[Exception]) -> None:
    found = [parent for parent in kind.__mro__ if parent in exits.CODES]
    # ObjectError only groups three errors that each have a code.
    assert found or kind is store_errors.ObjectError, f"give {kind.__name__} an exit code in trainers/exits.py"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SpecError("x"), 64),
        (store_errors.SettingsError("x"), 64),
        (store_errors.StoreRefused("x"), 64),
        (errors.DataError("x"), 65),
        (store_errors.DigestMismatch("x"), 65),
        (errors.ExportError("x"), 66),
        (errors.GateFailed("x"), 66),
        (store_errors.ManifestInvalid("x"), 66),
        (errors.BudgetReached("x"), 73),
        (store_errors.StoreUnavailable("x"), 75),
        (store_errors.StoreFull("x"), 75),
        (errors.PublishConflict("x"), 75),
        (errors.LauncherUnavailable("x"), 75),
        (errors.Preempted("x"), 143),
        (errors.HostDiffers("x"), 75),
        (ZeroDivisionError("x"), 70),
        (MemoryError(), 70),
        (errors.TrainerError("x"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_code_says_whose_fault_it_is(error: Exception, code: int) -> None:
    assert exits.code_of(error) == code


def test_an_error_that_a_recipe_derives_has_its_parents_code() -> None:
    class NoRows(errors.DataError):
        pass

    assert exits.code_of(NoRows("x")) == 65


@pytest.mark.parametrize("code", range(256))
def test_only_what_the_machine_did_is_retried(code: int) -> None:
    is_retried = policy.RetryPolicy().is_worth_retrying(code)
    assert is_retried == (code == 75 or code > 128)
    assert not (is_retried and code in exits.FINAL)


def test_a_death_by_signal_is_retried_in_both_notations() -> None:
    retry = policy.RetryPolicy()
    assert retry.is_worth_retrying(-signal.SIGKILL)
    assert retry.is_worth_retrying(128 + signal.SIGKILL)
    assert exits.meaning(-9) == exits.meaning(137) == "killed by signal 9"
    assert "checkpoint" in exits.meaning(143)


def test_batch_gets_at_most_five_rules_that_end_with_exit() -> None:
    strategy = policy.batch_retry_strategy(policy.RetryPolicy())
    assert strategy["attempts"] <= 10
    assert len(strategy["evaluateOnExit"]) <= 5
    assert strategy["evaluateOnExit"][-1] == {"onReason": "*", "action": "EXIT"}
    globs = [value for rule in strategy["evaluateOnExit"] for key, value in rule.items() if key.startswith("on")]
    assert not [glob for glob in globs if "*" in glob[:-1]]


@pytest.mark.parametrize(("attempt_s", "killed_s"), [(60, 66), (61, 68), (21_600, 23_760)])
def test_a_launcher_kills_a_tenth_later_than_an_attempt_stops_itself(attempt_s: int, killed_s: int) -> None:
    assert policy.killed_after_s(attempt_s) == killed_s

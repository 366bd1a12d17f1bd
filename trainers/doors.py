"""How an error leaves a training command: as one line, with the exit code that tells a scheduler whether to try again."""

import contextlib
import sys
import traceback
from collections.abc import Iterator

import click

from gateway.errors import GatewayError
from trainers import exits
from trainers.errors import TrainerError


def failed(error: Exception) -> click.ClickException:
    """What click prints as one line and exits with."""
    raised = click.ClickException(str(error) or type(error).__name__)
    setattr(raised, "exit_code", exits.code_of(error))  # noqa: B010  # click declares it for the class
    return raised


@contextlib.contextmanager
def errors_as_lines(*, is_debug: bool) -> Iterator[None]:
    """`trainers.exits` says which code an error has. With `is_debug` it leaves as it is, with its traceback.

    What is no error of ours is a defect, here or in the recipe: its traceback is printed whatever `is_debug` says.
    """
    try:
        yield
    except (TrainerError, GatewayError) as error:
        if is_debug:
            raise
        raise failed(error) from error
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        # Python itself would end with 1, which a launcher may take for something worth another try.
        traceback.print_exc()
        sys.exit(exits.code_of(error))

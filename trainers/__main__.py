"""`python -m trainers RECIPE ...`: the train command without the gateway's root command, for a training image."""

import sys

import click

from trainers.cli import processes
from trainers.cli.train import train


def main() -> int:
    """As `trainers.exits` says; 2 for a command line that cannot be read."""
    try:
        with processes.code_told():
            train.main(prog_name="python -m trainers", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

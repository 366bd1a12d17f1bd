"""`python -m trainers RECIPE ...`: the train command without the gateway's root command, for a training image."""

import sys

import click

from gateway.errors import GatewayError, SettingsError
from trainers.cli import train


def main() -> int:
    """The same exit codes as the root command's."""
    try:
        train.main(prog_name="python -m trainers", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except GatewayError as error:
        click.echo(f"Error: {error}", err=True)
        return 2 if isinstance(error, SettingsError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

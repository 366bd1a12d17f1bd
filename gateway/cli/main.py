"""The `steelyard` command: finds its subcommands in the entry-point group `steelyard.commands` and turns errors into one line.

Exit codes: 0 done, 1 failed, 2 misuse. A traceback is shown only with `--debug`.
"""

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path

import click

from gateway.errors import GatewayError, SettingsError

GROUP = "steelyard.commands"


class Commands(click.Group):
    """Subcommands by entry point, loaded when asked for: the gateway and the trainers may be installed without each other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        order = [
            "demo",
            "train",
            "import",
            "schedule",
            "runs",
            "sign",
            "serve",
            "cluster",
            "predict",
            "models",
            "keys",
            "costs",
            "budgets",
            "prices",
            "ledger",
            "advise",
            "drift",
            "envoy",
        ]
        names = [entry.name for entry in entry_points(group=GROUP)]
        return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for entry in entry_points(group=GROUP, name=name):
            return _load(entry)
        return None


def _load(entry: EntryPoint) -> click.Command:
    command = entry.load()
    assert isinstance(command, click.Command)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("steelyard"), prog_name="steelyard")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--from-terraform",
    "stack",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take store, region, queues and roles from this Terraform root, or from a file of `terraform output -json`.",
)
@click.pass_context
def steelyard(ctx: click.Context, debug: bool, stack: Path | None) -> None:
    """Train on GPUs, serve ONNX on CPUs, and weigh the cost of every prediction.

    Start with `steelyard demo`.
    """
    ctx.obj = {"debug": debug}
    if stack is not None:
        from gateway.cli import fromterraform

        os.environ.update(fromterraform.environment(stack))


def main() -> None:
    """The console script. Exits the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are printed to stderr as one line."""
    try:
        result = steelyard.main(args=arguments, prog_name="steelyard", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except GatewayError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"Error: {_harmless(str(error))}", err=True)
        return 2 if isinstance(error, SettingsError) else 1
    except ModuleNotFoundError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"Error: {error}; {_hint(error.name or '')}", err=True)
        return 1


def _harmless(message: str) -> str:
    """It may quote names of the store, which others write to: none may move the cursor or colour the terminal."""
    from gateway.reports.figures import printable

    return "\n".join(map(printable, message.split("\n")))


def _hint(module: str) -> str:
    extras = {
        "litestar": "gateway",
        "httptools": "gateway",
        "cryptography": "gateway",
        "duckdb": "reports",
        "model_signing": "signing",
        "OpenSSL": "signing",
        "torch": "trainers",
        "onnx": "trainers",
        "boto3": "launch",
    }
    extra = extras.get(module.split(".", 1)[0])
    return f"pip install 'steelyard[{extra}]'" if extra else "is everything installed?"

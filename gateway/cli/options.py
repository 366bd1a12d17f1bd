"""Options that several commands share."""

import click

DEFAULT_STORE = "./.steelyard/store"

STORE_HELP = "Object store: a folder, file:///path, or s3://bucket/prefix.  [env: STEELYARD_STORE]"

store = click.option(
    "--store",
    envvar="STEELYARD_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    metavar="URL",
    help=STORE_HELP,
)

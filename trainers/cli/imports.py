"""The `import` command: reads options, shows progress and the result. Runs nothing itself: `trainers.importing` does.

What was trained elsewhere needs no torch here, and onnx is imported when an import starts.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from gateway.objectstore.opening import open_store
from gateway.whoami import user_name
from trainers.cli.bars import Bars
from trainers.doors import errors_as_lines
from trainers.runs.options import store as store_option

if TYPE_CHECKING:
    from trainers.importing.asked import Changes, Words
    from trainers.importing.bringing import Import, Imported
    from trainers.signing import Signer

FOLDER = Path(".steelyard/imports")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What the model is called.")
@store_option
@click.option(
    "--golden",
    type=click.Path(path_type=Path),
    metavar="NPZ",
    help="Real rows by input, 128 or more; expected outputs by output; 'targets'. Without it nothing is quantized.",
)
@click.option(
    "--task",
    type=click.Choice(["classify", "regress", "embed", "custom"]),
    help="How variants are compared, and which metrics targets have.  [default: classify with --labels, else custom]",
)
@click.option("--labels", metavar="A,B,C|FILE", help="Names of the classes; or a .txt file, one a line, or .json list.")
@click.option(
    "--columns",
    multiple=True,
    metavar="NAME=A,B,C|*",
    help="Names along the last axis of an input; '*': every input of one value is a column of its own name.",
)
@click.option("--nullable", metavar="A,B", help="Columns of floats that may be null, which the graph sees as NaN.")
@click.option("--outputs", metavar="NAME,...", help="Keep only these outputs, and what they need.")
@click.option("--constant", multiple=True, metavar="NAME=VALUE", help="Bake an input in, as JSON.")
@click.option("--batch-axis", multiple=True, metavar="NAME=AXIS", help="A tensor whose rows are not on axis 0.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="Another name for an input or output.")
@click.option("--shape", multiple=True, metavar="NAME=batch,...", help="Declare what the file leaves open.")
@click.option("--dynamic-batch", is_flag=True, help="Open a frozen number of rows, if the answers prove it right.")
@click.option(
    "--batches", metavar="1,8,...", help="Batch sizes to expect, which candidates are timed at.  [default: 1,8,32,128]"
)
@click.option("--description", default="", help="One sentence for people.")
@click.option(
    "--promote", default="champion", show_default=True, metavar="ALIAS|none", help="Alias to answer with the result."
)
@click.option(
    "--sign-key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sign the version with this EC P-256 key (PEM); passphrase in STEELYARD_SIGN_PASSPHRASE.",
)
@click.option("--quiet", is_flag=True, help="Print only the published version.")
@click.pass_context
def bring(
    ctx: click.Context,
    /,
    file: Path,
    name: str,
    store: str,
    promote: str,
    *,
    quiet: bool,
    **options: Any,  # Any: as click read them
) -> None:
    """Publish FILE, an ONNX model from anywhere, as the model NAME: checked, quantized if that is measurably better, with golden
    vectors, card and bill of materials.

    --constant, --batch-axis, --outputs and the OLD of --rename name tensors as FILE does; --columns, --shape and the golden file as
    they are published. The same file and options again are the same version.

    \b
    Exit codes: 0 done, 64 bad option, 65 bad golden file, 66 the model cannot be served,
    70 defect, 75 try again.
    """
    is_debug = bool(ctx.obj and ctx.obj.get("debug"))
    with errors_as_lines(is_debug=is_debug):
        asked = _asked(file, name, promote, options)
        result = asyncio.run(_bring(asked, store, is_quiet=quiet))
    from trainers import summary

    console = Console()
    summary.show(console, result, is_quiet=quiet)
    if not result.is_new and not quiet:
        console.print("this file was imported with these options before: nothing was measured again", highlight=False)


async def _bring(asked: "Import", store: str, *, is_quiet: bool) -> "Imported":
    from trainers.importing.bringing import bring as brought

    async with contextlib.aclosing(open_store(store, create=True)) as opened:
        with Bars(is_shown=not is_quiet) as bars:
            return await brought(asked, opened, bars)


def _asked(file: Path, name: str, promote: str, options: dict[str, Any]) -> "Import":
    from trainers.importing import asked
    from trainers.importing.bringing import Import
    from trainers.job import BATCHES

    return Import(
        name=name,
        file=file,
        folder=FOLDER,
        actor=user_name(),
        golden=options["golden"],
        task=options["task"] or ("classify" if options["labels"] else "custom"),
        description=options["description"],
        changes=_changes(options),
        words=_words(options),
        batches=asked.batches(options["batches"]) if options["batches"] else BATCHES,
        promote_to=None if promote == "none" else promote,
        signer=_signer(options["sign_key"]),
    )


def _changes(options: dict[str, Any]) -> "Changes":
    from trainers.importing import asked

    return asked.Changes(
        constants=asked.constants(options["constant"]),
        batch_axes=asked.axes(options["batch_axis"]),
        outputs=asked.names("--outputs", options["outputs"]) if options["outputs"] else (),
        renames=asked.pairs("--rename", options["rename"]),
        shapes=asked.shapes(options["shape"]),
        dynamic_batch=options["dynamic_batch"],
    )


def _words(options: dict[str, Any]) -> "Words":
    from trainers.importing import asked

    return asked.Words(
        columns=asked.columns(options["columns"]),
        nullable=frozenset(asked.names("--nullable", options["nullable"]) if options["nullable"] else ()),
        labels=asked.labels(options["labels"]) if options["labels"] else (),
    )


def _signer(key: Path | None) -> "Signer | None":
    if key is None:
        return None
    from trainers import signing

    return signing.signer(key)

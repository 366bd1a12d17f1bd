"""`steelyard models` in a terminal: what it lists, compares and decides, and what it says when that cannot be."""

import asyncio
import io
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from gateway.cli import manifestdiff
from gateway.cli.models import models as command
from gateway.contract.manifest import Latency, Manifest
from gateway.errors import GatewayError
from gateway.objectstore.local import LocalStore
from tests.support import models, trainingruns
from trainers.runs import settle


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three versions of `tiny`, the first promoted, and an unpromoted `mlp`."""

    async def publish() -> None:
        local = LocalStore(tmp_path)
        for seed in range(3):
            variants = ("fp32", "int8") if seed == 2 else ("fp32",)
            promote_to = None if seed else "champion"
            await models.publish_tiny(local, seed=seed, variants=variants, promote_to=promote_to)
        await models.publish_mlp(local, promote_to=None)

    asyncio.run(publish())
    return tmp_path


def run(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--store", str(store)])


def said(store: Path, *arguments: str) -> str:
    result = run(store, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def rows(text: str) -> list[list[str]]:
    """Cells of a table, which stand two blanks or more apart."""
    return [[cell for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_every_alias_is_listed_with_all_that_answers(store: Path) -> None:
    said(store, "canary", "tiny", "2", "--percent", "12.5")
    said(store, "shadow", "tiny", "3", "--percent", "1%")
    said(store, "promote", "tiny", "3", "--alias", "beta")
    assert [[cell.strip() for cell in row] for row in rows(said(store, "list"))] == [
        ["model", "alias", "champion", "canaries", "shadow", "versions"],
        ["mlp", "none", "1"],
        ["tiny", "beta", "3", "1, 2, 3"],
        ["champion", "1", "2 at 12.5 %", "3 on 1 %"],
    ]


def test_each_decision_says_who_answers_now(store: Path) -> None:
    lines = [
        said(store, *arguments).strip()
        for arguments in (
            ("canary", "tiny", "2", "--percent", "5"),
            ("shadow", "tiny", "3"),
            ("canary", "tiny", "2", "--percent", "0"),
            ("shadow", "tiny", "3", "--off"),
            ("promote", "tiny", "2"),
            ("rollback", "tiny"),
            ("rollback", "tiny", "--to", "2"),
        )
    ]
    assert lines == [
        "alias 'champion' of model 'tiny': version 1, canary 2 at 5 % (generation 2)",
        "alias 'champion' of model 'tiny': version 1, canary 2 at 5 %, shadow 3 (generation 3)",
        "alias 'champion' of model 'tiny': version 1, shadow 3 (generation 4)",
        "alias 'champion' of model 'tiny': version 1 (generation 5)",
        "alias 'champion' of model 'tiny': version 2 (generation 6)",
        "alias 'champion' of model 'tiny': version 1 (generation 7)",
        "alias 'champion' of model 'tiny': version 1, canary 2 at 5 % (generation 8)",
    ]


def test_history_says_who_and_why_and_prints_no_markup(store: Path) -> None:
    said(store, "promote", "tiny", "2", "--actor", "anna", "--reason", "[red]better[/red]")
    said(store, "rollback", "tiny", "--actor", "ben")
    text = said(store, "history", "tiny")
    newest, before, first = text.splitlines()[1:]
    assert newest.startswith("3 ")
    assert "version 1, as in generation 1" in newest
    assert "ben" in newest
    assert "anna" in before
    assert "[red]better[/red]" in before
    assert "built for a test" in first
    assert said(store, "history", "tiny", "--alias", "champion") == text


def test_what_training_wasted_is_shown_where_it_is_known(store: Path, tmp_path: Path) -> None:
    assert "training: 60.0 s on c7i.large, $0.001488\n" in said(store, "show", "tiny")

    async def publish() -> None:
        local = LocalStore(tmp_path)
        tried = await trainingruns.interrupted(local)
        cost = settle.training_cost([(one.attempt, one.end) for one in tried if one.end])
        manifest, contents = models.manifest_of("digits", models.TINY_SIGNATURE, {"fp32": models.tiny_graph()})
        await models.publish_files(local, msgspec.structs.replace(manifest, training_cost=cost), contents)

    asyncio.run(publish())
    text = said(tmp_path, "show", "digits")
    assert "training: 130.0 s on g4dn.xlarge, $0.012858, of which wasted $0.001899\n" in text
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")
    ]
    assert ["g4dn.xlarge", "us-east-1a", "spot", "0.1578", "60.0", "50", "10"] in cells
    assert ["g4dn.xlarge", "-", "unknown", "0.526", "70.0", "60", "0"] in cells


def test_a_diff_tells_latencies_of_another_length_apart() -> None:
    """Where rows have a length, each batch size is measured at several."""
    manifest, _ = models.manifest_of("text", models.TINY_SIGNATURE, {"fp32": models.tiny_graph()})

    def of(short_ns: int, long_ns: int) -> Manifest:
        cells = tuple(
            Latency(batch_rows=8, p50_ns=ns, p99_ns=ns, runs=30, length=length)
            for ns, length in ((short_ns, 16), (long_ns, 64))
        )
        variant = msgspec.structs.replace(manifest.variants[0], latency=cells)
        return msgspec.structs.replace(manifest, variants=(variant,))

    console = Console(file=io.StringIO(), width=200)
    manifestdiff.render(console, (1, of(1000, 5000)), (2, of(2000, 5000)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "us at batch 8 x 16" in text
    assert "+100.0%" in text
    assert "8 x 64" not in text


def test_a_diff_shows_what_differs_and_nothing_else(store: Path) -> None:
    text = said(store, "diff", "tiny@1", "3")
    assert "variant fp32 sha256" in text
    assert "variant int8 bytes" in text
    assert "description" not in text
    assert "do not differ" in said(store, "diff", "tiny@1", "champion")
    text = said(store, "diff", "tiny", "mlp@1")
    assert "BYTES [batch, 2]" in text
    assert "FP32 [batch, 32]" in text
    assert "+" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "tiny", "--version", "9"), "no version 9; published: 1, 2, 3"),
        (("show", "tiny", "--version", "beta"), "no version or alias 'beta'"),
        (("show", "mlp"), "none is promoted to 'champion' yet"),
        (("diff", "tiny", "nosuch@1"), "no model is named 'nosuch'"),
        (("history", "nosuch"), "no model is named 'nosuch'"),
        (("history", "tiny", "--alias", "beta"), "no decision about an alias 'beta'; aliases: champion"),
        (("history", "tiny", "--alias", "2"), "no decision about an alias '2'; aliases: champion"),
        (("history", "mlp", "--alias", "1"), "no decision about an alias '1'; aliases: none"),
        (("history", "mlp"), "none is promoted to 'champion' yet"),
        (("history", "nosuch", "--alias", "beta"), "no model is named 'nosuch'"),
        (("promote", "tiny", "9"), "no version 9"),
        (("canary", "mlp", "1", "--percent", "1"), "has no champion yet; promote a version first"),
        (("rollback", "tiny"), "no earlier state to go back to"),
    ],
)
def test_what_cannot_be_is_a_sentence(store: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(store, *arguments)
    assert isinstance(result.exception, GatewayError)
    assert message in str(result.exception)


@pytest.mark.parametrize("percent", ["-1", "101", "0.001", "half", "nan", "inf", ""])
def test_a_share_must_be_a_percentage(store: Path, percent: str) -> None:
    result = run(store, "canary", "tiny", "2", f"--percent={percent}")
    assert result.exit_code == 2
    assert f"'{percent}' is not" in result.stderr


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    assert "nothing is published" in said(tmp_path)

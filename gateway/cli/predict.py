"""`steelyard predict`: ask a running gateway, and show what it answered and what that cost."""

import json
import urllib.error
import urllib.request
from typing import Any, TextIO
from urllib.parse import quote

import click

LISTED_MAX = 4
"""Elements of a list that a line shows: an embedding has hundreds, and `--json` prints them all."""


@click.command
@click.argument("model")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Address of the gateway.")
@click.option(
    "--rows",
    "file",
    type=click.File(),
    metavar="FILE",
    help='JSON: a row, a list of rows, or {"rows": [...]}; - is stdin.',
)
@click.option(
    "--row",
    "pairs",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="One column of one row; repeat for each column. Or a whole row as a JSON object; repeat for each row.",
)
@click.option(
    "--key",
    envvar="STEELYARD_KEY",
    metavar="KEY",
    help="Your key, where the gateway needs one; other users of this machine see options, so rather set the variable.  "
    "[env: STEELYARD_KEY]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the gateway's answer as it is.")
def predict(model: str, url: str, file: TextIO | None, pairs: tuple[str, ...], key: str | None, as_json: bool) -> None:
    """Predict rows with MODEL on a running gateway.

    \b
    steelyard predict flights --rows flights.json
    steelyard predict flights --row carrier=UA --row origin=EWR ...
    steelyard predict newsgroups --row '{"text": "Which engine flies to orbit?"}'
    """
    if (file is None) == (not pairs):
        raise click.UsageError("give the rows either as --rows FILE or as --row COLUMN=VALUE ...")
    rows = _rows_of(file) if file else _rows_given(pairs)
    answer = _post(f"{url.rstrip('/')}/v1/predict/{quote(model, safe='')}", {"rows": rows}, key)
    if as_json:
        click.echo(json.dumps(answer))
        return
    for prediction in answer["predictions"]:
        click.echo("  ".join(f"{name}={_short(value)}" for name, value in prediction.items()))
    receipt = answer["receipt"]
    direct = receipt["cost_picousd"]
    cost = "UNPRICED" if direct is None else f"{direct:,} picodollars direct"
    if (full := receipt.get("cost_full_picousd_estimated")) is not None:
        cost += f" (about {full:,} in full)"
    click.echo(
        f"{answer['model']}@{answer['version']} ({receipt['variant']}): {receipt['rows']} rows, "
        f"{receipt['cpu_ns'] / 1e6:.3f} ms CPU, {cost}, {receipt['request_id']}"
    )


def _rows_of(file: TextIO) -> list[Any]:
    try:
        rows = json.load(file)
    except ValueError as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from None
    if isinstance(rows, dict):
        rows = rows.get("rows", [rows])
    if not isinstance(rows, list):
        raise click.UsageError(f"{file.name} holds no rows: a row is an object, rows are a list of them")
    return rows


def _rows_given(pairs: tuple[str, ...]) -> list[Any]:
    """Columns of one row, or whole rows as objects."""
    if not any(pair.lstrip().startswith("{") for pair in pairs):
        return [dict(_pair(pair) for pair in pairs)]
    try:
        return [json.loads(pair) for pair in pairs]
    except ValueError as error:
        raise click.UsageError(
            f"--row takes COLUMN=VALUE, or objects only, and one of them is not JSON: {error}"
        ) from None


def _pair(text: str) -> tuple[str, Any]:
    """`distance=1400` is a number, `carrier=UA` a string, `temp=null` nothing."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--row takes COLUMN=VALUE, not '{text}'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _post(url: str, body: object, key: str | None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError("--url is no address: it begins with http:// or https://")
    key = (key or "").strip()  # a file of a key may end a line
    if not (key.isascii() and key.isprintable()):  # else the error would quote it
        raise click.UsageError("--key holds characters that no key has")
    headers = {"Content-Type": "application/json"} | ({"Steelyard-Key": key} if key else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  # the user's own URL
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise click.ClickException(_sentence(error)) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise click.ClickException(f"no gateway answers at {url}: {getattr(error, 'reason', error)}") from None


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return f"{json.load(error)['error']} (HTTP {error.code})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} from {error.url}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(map(_short, value[:LISTED_MAX]))
        return f"[{shown}, ... {len(value)} in all]" if len(value) > LISTED_MAX else f"[{shown}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)

"""The command line as a shell sees it: exit codes, one clear line, and no traceback."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.contract.ledger import Posting
from tests.support import gateways, ledgers, models

ROW = dict(models.TINY_EXAMPLES.rows[0])


def steelyard(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nosuch"], 2, "No such command 'nosuch'"),
        (["train", "nosuch"], 64, "no recipe 'nosuch'; there are: flights"),
        (["serve", "--store", "/nonexistent", "--port", "0"], 1, "no folder /nonexistent; create it"),
        (["serve", "--store", "ftp://x", "--port", "0"], 2, "store 'ftp://x'"),
        (["serve", "--config", "/no.toml"], 2, "/no.toml: No such file"),
        (["serve", "--port", "99999"], 2, "99999"),
        (["models", "list", "--store", "/nonexistent"], 1, "no folder /nonexistent"),
        (["costs", "--store", "/nonexistent"], 1, "no folder /nonexistent"),
        (["costs", "--since", "yesterday"], 2, "'yesterday' is not an ISO date"),
        (["predict", "flights"], 2, "--rows FILE or as --row COLUMN=VALUE"),
        (["predict", "flights", "--row", '{"a": 1}', "--row", "b=1"], 2, "--row takes COLUMN=VALUE, or objects only"),
        (["predict", "flights", "--row", "carrier"], 2, "takes COLUMN=VALUE, not 'carrier'"),
        (
            ["predict", "flights", "--url", "http://127.0.0.1:1", "--row", "a=1"],
            1,
            "no gateway answers at http://127.0.0.1:1",
        ),
        (["predict", "flights", "--url", "here", "--row", "a=1"], 2, "--url is no address: it begins with http://"),
        (["predict", "flights", "--row", "a=1", "--key", "sy_secret\rx"], 2, "--key holds characters that no key has"),
        (["predict", "flights", "--row", "a=1", "--key", "sy_secret…"], 2, "--key holds characters that no key has"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: list[str], code: int, message: str) -> None:
    done = steelyard(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "sy_secret" not in done.stderr


@pytest.mark.parametrize("rows", ["5", '{"rows": 5}', '"x"'])
def test_rows_that_are_none_are_one_clear_line(rows: str) -> None:
    done = steelyard("predict", "flights", "--rows", "-", stdin=rows)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "Error: <stdin> holds no rows: a row is an object, rows are a list of them"


def test_a_mistake_about_a_model_names_what_there_is(store: Path) -> None:
    for arguments in (["models", "show", "nosuch"], ["serve", "--port", "0", "--preload", "nosuch"]):
        done = steelyard(*arguments, "--store", str(store))
        assert (done.returncode, done.stderr.splitlines()[-1]) == (
            1,
            "Error: no model is named 'nosuch'; published: tiny",
        )


def test_a_port_in_use_is_one_line(store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = steelyard("serve", "--store", str(store), "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_debug_shows_the_traceback(store: Path) -> None:
    done = steelyard("--debug", "models", "show", "nosuch", "--store", str(store))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_models_lists_and_shows(store: Path) -> None:
    assert steelyard("models", "--store", str(store)).stdout.splitlines()[1].split() == ["tiny", "champion", "1", "1"]
    shown = steelyard("models", "show", "tiny", "--store", str(store)).stdout
    assert "tiny@1" in shown
    assert "evaluations" in shown


def test_predict_asks_a_running_gateway(store: Path, tmp_path: Path) -> None:
    with gateways.running(store, tmp_path) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        by_file = steelyard("predict", "tiny", "--url", url, "--rows", "-", stdin=json.dumps({"rows": [ROW, ROW]}))
        pairs = [part for name, value in ROW.items() for part in ("--row", f"{name}={value}")]
        by_pairs = steelyard("predict", "tiny", "--url", url, *pairs, "--json")
        refused = steelyard("predict", "tiny", "--url", url, "--row", "carrier=AA")
    assert by_file.stdout.count("late_probability=0.") == 2
    assert "tiny@1 (fp32): 2 rows" in by_file.stdout
    assert json.loads(by_pairs.stdout)["receipt"]["rows"] == 1
    assert refused.returncode == 1
    assert "missing required field `origin`" in refused.stderr


def test_help_lists_every_command_and_needs_no_heavy_import() -> None:
    code = "import sys; from gateway.cli import main; main.run(['--help']); print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    heavy = ["torch", "litestar", "onnxruntime", "duckdb", "numpy", "aiobotocore", "cryptography", "model_signing"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, timeout=60)
    *text, imported = done.stdout.splitlines()
    assert imported == "[]"
    for command in ("demo", "train", "serve", "predict", "models", "keys", "costs"):
        assert any(line.strip().startswith(command) for line in text)


def test_an_error_that_quotes_a_name_of_the_store_cannot_control_the_terminal(tmp_path: Path) -> None:
    served = Posting("infer", ledgers.VCPU, 600, 10**6, "digits", 1, "\x07red\r\x1b", "ok", 3, 6)
    ledgers.write(tmp_path / "store", ledgers.container("c", [[*ledgers.charges(600, 0), served]]))
    done = steelyard("costs", "--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"), "--tenant", "x")
    assert (done.returncode, done.stderr) == (1, "Error: tenant 'x' has no costs here; tenants that have: '�red��'\n")

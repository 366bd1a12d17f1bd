"""`steelyard costs --html`: the file opens in a real browser that can reach nothing, and shows its plots."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.costs import costs as command
from tests.support import ledgers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def written(tmp_path: Path, *arguments: str) -> Path:
    ledgers.write(tmp_path / "store", ledgers.random_ledger(11))
    options = ("--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache"))
    result = CliRunner().invoke(command, [*options, "--html", str(tmp_path / "costs.html"), *arguments])
    assert result.exit_code == 0, result.output
    assert result.output == ""
    return tmp_path / "costs.html"


def browsed(page: Path, folder: Path, *arguments: str) -> str:
    return browsed_url(page.as_uri(), folder, *arguments)


def browsed_url(url: str, folder: Path, *arguments: str) -> str:
    """What the browser prints; it reaches this machine only."""
    assert CHROMIUM is not None, "install chromium (Debian: apt-get install chromium)"
    offline = (
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-background-networking",
        f"--user-data-dir={folder}",
    )
    # As root, in a container, the browser's own sandbox cannot be made.
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *offline, *arguments)
    done = subprocess.run([CHROMIUM, *flags, url], capture_output=True, timeout=60, check=True)
    assert b"Content Security Policy" not in done.stderr
    return done.stdout.decode()


@pytest.mark.e2e if CHROMIUM is None else pytest.mark.filterwarnings("error")
def test_page_opens_in_chromium_without_a_network(tmp_path: Path):
    page = written(tmp_path, "--by", "model,hour")
    dom = browsed(page, tmp_path / "profile", "--dump-dom")
    assert dom.count("<svg") >= 3
    assert "Exact:" in dom
    assert "<rect" in dom


@pytest.mark.e2e if CHROMIUM is None else pytest.mark.filterwarnings("error")
def test_page_is_painted_at_a_phones_width(tmp_path: Path):
    page, picture = written(tmp_path), tmp_path / "phone.png"
    browsed(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=500,900")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000  # a blank one has some 3 kB


def test_page_and_other_formats_exclude_each_other(tmp_path: Path):
    for other in ("--json", "--csv", "--format=csv"):
        result = CliRunner().invoke(command, ["--store", str(tmp_path), "--html", "x.html", other])
        assert result.exit_code == 2

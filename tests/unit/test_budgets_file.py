"""The file of budgets: what it says in, exact amounts, and everything that is wrong refused by name."""

from pathlib import Path

import pytest

from gateway.budgets import budgetfile
from gateway.budgets.budgetfile import Budget, Webhook
from gateway.errors import SettingsError

GOOD = """
[webhook]
url = "https://hooks.example.com/steelyard"
secret_env = "HOOK_SECRET"

[[budget]]
id = "flights-month"
model = "flights"
period = "month"
usd = "25.50"
thresholds = [0.5, 0.80, 1]
forecast = [1.0]
"""


def loaded(tmp_path: Path, text: str) -> budgetfile.BudgetFile:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return budgetfile.load(path)


def test_reads_what_is_said_exactly(tmp_path: Path):
    file = loaded(tmp_path, GOOD)
    assert file.budget == (
        Budget("flights-month", "month", "25.50", "flights", "*", "full", ("0.5", "0.8", "1"), ("1",)),
    )
    assert file.budget[0].limit_picousd == 25_500_000_000_000
    assert file.webhook == Webhook("https://hooks.example.com/steelyard", "HOOK_SECRET", 10.0)
    assert loaded(tmp_path, GOOD.replace('secret_env = "HOOK_SECRET"', "timeout_s = 2.5")).webhook.timeout_s == 2.5  # type: ignore[union-attr]


def with_budget(**changed: str) -> str:
    lines = {"id": '"b"', "period": '"day"', "usd": '"1"'} | changed
    return "[[budget]]\n" + "\n".join(f"{name} = {value}" for name, value in lines.items())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (with_budget(usd='"-5"'), "budget 'b': 'usd' is '-5', not a decimal above zero"),
        (with_budget(usd="-5.0"), "budget 'b': 'usd' is '-5.0', not a decimal above zero"),
        (with_budget(usd='"5\\n"'), "not a decimal above zero"),
        (with_budget(usd='"0"'), "must be above 0"),
        (with_budget(usd='"0.00"'), "must be above 0"),
        (with_budget(usd="5"), "usd"),
        (with_budget(usd='"1e3"'), "'usd' is '1e3', not a decimal above zero"),
        (with_budget(usd='"0.0000000000001"'), "more than 12 decimals"),
        (with_budget() + "\n" + with_budget(), "two budgets have the id 'b'"),
        (with_budget(colour="1"), "unknown key `\\$.budget\\[0\\].colour`"),
        ("colour = 1\n" + with_budget(), "unknown key `\\$.colour`"),
        (with_budget(period='""'), "'period' is day, month or hours:N"),
        (with_budget(period='"week"'), "not 'week'"),
        (with_budget(period='"hours:0"'), "not 'hours:0'"),
        (with_budget(period='"hours:745"'), "not 'hours:745'"),
        (with_budget(period='"hours:+3"'), "hours:N"),
        (with_budget(id='""'), "id"),
        (with_budget(id='"../x"'), "id"),
        (with_budget(model='""'), "model"),
        (with_budget(view='"idle"'), "view"),
        (with_budget(thresholds="[]"), "has no threshold"),
        (with_budget(thresholds="[0.8, 0.80]"), "names a factor twice"),
        (with_budget(thresholds="[0]"), "a factor above 0"),
        (with_budget(thresholds="[-0.5]"), "a factor above 0"),
        (with_budget(thresholds="[1001]"), "up to 1000"),
        (with_budget(thresholds='["nan"]'), "a factor above 0"),
        (with_budget(thresholds="[inf]"), "a factor above 0"),
        (with_budget(forecast="[" + ", ".join(f"1.{n}" for n in range(101, 118)) + "]"), "more than 16 entries"),
        (with_budget(thresholds="0.5"), "thresholds"),
        ("", "budget"),
        ("budget = []", "no \\[\\[budget\\]\\]"),
        ("budget = 1", "budget"),
        ("not toml", "mine.toml"),
    ],
)
def test_refuses_by_name(tmp_path: Path, text: str, says: str):
    with pytest.raises(SettingsError, match=says) as refused:
        loaded(tmp_path, text)
    assert "mine.toml" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com/x", "http only to this machine, not to example.com"),
        ("http://10.0.0.1/x", "http only to this machine"),
        ("http://localhost.example.com/", "http only to this machine"),
        ("ftp://127.0.0.1/", "must be https"),
        ("https://", "must be https"),
        ("hooks", "must be https"),
        ("https://user:word@example.com/", "must not carry a password"),
        ("https://example.com:port/", "mine.toml"),
        ("https://example.com/a b", "no URL has"),
        ("https://ex\\u00e4mple.com/", "no URL has"),
        ("https://example.com/\\r\\nx: y", "no URL has"),
    ],
)
def test_refuses_a_webhook_that_is_none(tmp_path: Path, url: str, says: str):
    with pytest.raises(SettingsError, match=says):
        loaded(tmp_path, f'[webhook]\nurl = "{url}"\n' + with_budget())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "http://localhost/", "http://[::1]:8080/", "https://example.com"]
)
def test_takes_https_and_this_machine(tmp_path: Path, url: str):
    assert loaded(tmp_path, f'[webhook]\nurl = "{url}"\n' + with_budget()).webhook is not None


def test_refuses_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SettingsError, match="No such file"):
        budgetfile.load(tmp_path / "none.toml")

"""How a cost report is written: JSON and CSV that give it back, tables that cut no number, names that can do no harm."""

import csv
import io
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.ledger import Posting
from gateway.reports import export, figures
from gateway.reports.costs import CostReport
from tests.support import ledgers
from tests.support.costreports import IDLE, SERVED, printed, reported, segment
from tests.support.ledgers import VCPU, Ledger

seeds = st.integers(0, 2**32)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_json_and_csv_give_back_the_report(seed: int):
    result = reported(ledgers.random_ledger(seed))
    assert msgspec.json.decode(export.as_json(result), type=CostReport) == result
    rows = list(csv.DictReader(io.StringIO(export.as_csv(result))))
    assert [row["model"].lstrip("'") for row in rows[: len(result.models)]] == [row.model for row in result.models]
    assert sum(int(row["full_picousd"]) for row in rows) == result.charged_picousd


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", " =1"])
def test_csv_cells_are_never_formulas(name: str):
    posting = msgspec.structs.replace(SERVED, model=name)
    text = export.as_csv(reported(ledgers.container("c", [segment(posting)])))
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert row["model"] == f"'{name}"


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb"])
def test_csv_keeps_separators_inside_a_name(name: str):
    posting = msgspec.structs.replace(SERVED, model=name)
    text = export.as_csv(reported(ledgers.container("c", [segment(posting)])))
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert row["model"] == name


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_numbers_are_never_cut(width: int):
    amounts = random.Random(width).sample(range(10**9, 10**12), 3)
    name = "a-name-of-sixty-three-characters-which-is-the-longest-there-is"
    postings = [Posting("infer", VCPU, cost, 10**12, name, 1, "", "ok", 123_456_789, 1) for cost in amounts]
    result = reported(ledgers.container("c", [segment(*postings, IDLE)]))
    text = printed(result, width, terminal=True)
    assert figures.scale(result.charged_picousd).amount(result.models[0].full_picousd) in text
    assert f"{3 * 123_456_789:,}" in text
    assert "…" not in text


def test_names_cannot_control_the_terminal():
    posting = msgspec.structs.replace(SERVED, model="[red]a\x1b[31mb[/red]")
    text = printed(reported(ledgers.container("c", [segment(posting)])), terminal=True)
    assert "\x1b[31m" not in text
    assert "[red]a�[31mb[/red]@1" in text


def test_report_ends_with_the_proven_bill():
    text = printed(reported(ledgers.container("c", [segment(SERVED, IDLE)] * 2)))
    assert "bill: 2 vCPU, 4 GB for 2.0 min on fargate-x86 = $0.000000002200 = sum of all rows, exact" in text


def test_long_list_of_findings_is_cut_and_says_so():
    ledger: Ledger = {}
    for number in range(25):
        ledger |= ledgers.container(f"c{number}", [segment(SERVED)], is_closed=False)
    assert "... and 5 more; --json lists them all" in printed(reported(ledger))


@pytest.mark.parametrize(
    ("picousd", "text"),
    [(0, "$0"), (1, "$0.000000000001000"), (56_222, "$0.00000005622"), (2_553_300_000, "$0.002553"), (10**12, "$1.00")],
)
def test_dollars_have_sensible_digits(picousd: int, text: str):
    assert figures.dollars(picousd) == text

"""SIGKILL under load, again and again in one container: the ledger and what is unattributed are the bill, nothing is there twice.

Ten times takes half a minute, mostly in processes that start; two hundred times: `python -m tests.bench.killed`.
"""

from pathlib import Path

from tests.support import killing


def test_ten_kills_lose_no_money_and_double_no_record(tmp_path: Path) -> None:
    proof = killing.rounds(tmp_path, 10, seed=1)
    assert 2 <= proof.lives <= 11  # a life killed before its opening record is the one's before it
    assert proof.receipts > 100
    assert 0 < proof.verdict.unattributed_picousd < proof.bill_picousd


def test_a_kill_that_nobody_follows_costs_the_platform_s_minimum(tmp_path: Path) -> None:
    proof = killing.rounds(tmp_path, 1, seed=3, ends_well=False)
    assert 0 < proof.verdict.unattributed_picousd < proof.bill_picousd

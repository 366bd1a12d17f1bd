"""Decisions on real graphs in a real store: who takes over, who is held back and why, and what is written down about it."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.contract import codec, layout
from gateway.contract.manifest import Signature, Tensor
from gateway.contract.promotions import Decision
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from gateway.registry.reading import Registry
from tests.support import promotions
from tests.support.models import NOW_NS
from tests.support.promotions import MODEL, QUICK, decided, made, published, split
from trainers import metrics, objectives
from trainers.job import Split
from trainers.promotion import decision, evaluation
from trainers.promotion.decision import Decided
from trainers.rules import Rules

WORSE = -2.0  # each weight is off by so much: the answers point the other way
S = 10**9


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


async def champion(store: ObjectStore) -> int:
    return (await Registry(store).alias(MODEL)).promotion.version


async def stored(store: ObjectStore, run_id: str) -> Decision:
    return codec.decode((await store.get(layout.decision(run_id))).body, Decision)


def failed(found: Decided) -> list[str]:
    return [gate.name for gate in found.decision.failed]


async def test_the_first_version_has_nobody_to_beat(store: ObjectStore, tmp_path: Path):
    found = await decided(store, await published(store, tmp_path, "one", error=WORSE))
    assert found.decision.verdict == "first"
    assert found.decision.sentence == "version 1 is the first: there is no other to compare it with"
    assert await champion(store) == 1
    assert await stored(store, "one") == found.decision


async def test_even_the_first_version_must_reach_the_floor(store: ObjectStore, tmp_path: Path):
    rules = msgspec.structs.replace(QUICK, floors={"brier": 0.25})
    found = await decided(store, await published(store, tmp_path, "one", error=WORSE, rules=rules))
    assert (found.decision.verdict, failed(found), found.promotion) == ("hold", ["floor brier"], None)
    assert await Registry(store).history(MODEL) == []


async def test_a_version_that_is_no_worse_takes_over_and_the_log_says_why(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one", error=0.1))
    found = await decided(store, await published(store, tmp_path, "two", error=0.0, data=made(1)))
    assert found.decision.verdict == "promote", found.decision.sentence
    assert (found.decision.version, found.decision.champion_version) == (2, 1)
    [_, entry] = await Registry(store).history(MODEL)
    assert found.promotion == entry
    unsigned = msgspec.structs.replace(found.decision, report_sha256="")
    assert found.decision.report_sha256 == codec.sha256(codec.encode(unsigned))
    digits = found.decision.report_sha256[:12]
    assert entry.reason == f"run two: {found.decision.sentence} [decision {digits}]"
    assert "version 2 takes over from version 1: gains on 600 frozen rows brier" in entry.reason
    assert {judged.name: judged.rows for judged in found.decision.judged} == {"frozen": 600, "newest": 600}


async def test_a_worse_version_is_held_back_on_both_row_sets(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    found = await decided(store, await published(store, tmp_path, "two", error=WORSE, data=made(1)))
    assert (found.decision.verdict, found.promotion) == ("hold", None)
    assert failed(found) == ["frozen brier", "newest brier"]
    assert "version 2 is held back: frozen brier gains -0." in found.decision.sentence
    assert found.decision.sentence.endswith("version 1 goes on")
    assert await champion(store) == 1
    assert await stored(store, "two") == found.decision


async def test_both_are_scored_anew_and_not_by_what_their_manifests_say(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one", error=WORSE))
    found = await decided(store, await published(store, tmp_path, "two", data=made(1)))
    newest = next(judged for judged in found.decision.judged if judged.name == "newest")
    assert newest.champion["brier"] > newest.candidate["brier"] + 0.1
    low, high = newest.gains["brier"]
    assert 0.1 < low < newest.champion["brier"] - newest.candidate["brier"] < high


async def test_rows_that_training_has_seen_are_left_out(store: ObjectStore, tmp_path: Path):
    """The same graph, and 450 of the champion's rows with other labels in the candidate's training, 50 in its validation."""
    await decided(store, await published(store, tmp_path, "one"))
    test = made().test
    leaked = Split({"features": test.inputs["features"][:450]}, 1 - test.targets[:450])
    train = Split(
        {"features": np.concatenate([split(400, 9).inputs["features"], leaked.inputs["features"]])},
        np.concatenate([split(400, 9).targets, leaked.targets]),
    )
    data = made(1, train=train)
    data = msgspec.structs.replace(data, validation=test.picked(np.arange(440, 490)))
    found = await decided(store, await published(store, tmp_path, "two", error=0.01, data=data))
    frozen = next(judged for judged in found.decision.judged if judged.name == "frozen")
    assert (frozen.rows, frozen.excluded, frozen.skipped) == (110, 490, "")


async def test_where_all_frozen_rows_were_seen_the_newest_decide_alone(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    data = made(1, train=made().test)
    found = await decided(store, await published(store, tmp_path, "two", error=0.01, data=data))
    frozen = next(judged for judged in found.decision.judged if judged.name == "frozen")
    assert (frozen.rows, frozen.excluded) == (0, 600)
    assert frozen.skipped == "0 rows that training has not seen; at least 100 are needed"
    assert found.decision.verdict == "promote"
    assert [gate.name for gate in found.decision.gates if "brier" in gate.name] == ["newest brier"]


async def test_a_test_split_that_training_has_seen_is_a_leak(store: ObjectStore, tmp_path: Path):
    test = split(600, 5)
    train = Split({"features": np.concatenate([test.inputs["features"][:60]] * 10)}, np.tile(test.targets[:60], 10))
    found = await decided(store, await published(store, tmp_path, "one", data=made(train=train, test=test)))
    assert (found.decision.verdict, failed(found)) == ("hold", ["overlap"])
    [gate] = found.decision.failed
    assert gate.measured == pytest.approx(0.1)


async def test_too_few_newest_rows_decide_nothing(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    data = made(1, test=split(99, 7))
    found = await decided(store, await published(store, tmp_path, "two", data=data))
    assert failed(found) == ["newest brier"]
    assert "could not be measured (99 rows; at least 100 are needed)" in found.decision.sentence


async def test_a_champion_from_before_rows_travelled_is_judged_on_the_newest(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one", rows_max=0))
    found = await decided(store, await published(store, tmp_path, "two", error=0.01, data=made(1)))
    assert found.decision.verdict == "promote"
    assert found.decision.judged[0].skipped == "the champion carries no evaluation rows"
    assert not {gate.name for gate in found.decision.gates} & {"train_rows_min", "label_shift", "frozen brier"}


async def test_a_champion_that_was_tampered_with_is_not_compared_with(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    manifest = (await published(store, tmp_path, "two", data=made(1))).side.manifest
    [file] = [file for file in manifest.files if file.role == "model"]
    blob = tmp_path / "store" / layout.blob(MODEL, file.sha256)
    blob.chmod(0o600)
    blob.write_bytes(bytes(file.size))
    found = await decided(store, await published(store, tmp_path, "three", error=0.01, data=made(1)))
    assert (found.decision.verdict, failed(found)) == ("hold", ["integrity"])
    assert "integrity could not be measured (the champion: model 'scales': file 'fp32.onnx'" in found.decision.sentence
    assert await champion(store) == 1


async def test_evaluation_rows_that_cannot_be_read_fail_closed(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as broken:
        broken.setattr(evaluation, "pack", lambda frozen: b"no rows")
        await decided(store, await published(store, tmp_path, "one"))
    found = await decided(store, await published(store, tmp_path, "two", data=made(1)))
    assert (found.decision.verdict, failed(found)) == ("hold", ["integrity"])


async def test_a_version_that_callers_would_notice_needs_a_person(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    signature = Signature(promotions.SIGNATURE.inputs, (Tensor("verdict", "FP32", ("batch", 1)),))
    data = msgspec.structs.replace(made(1), signature=signature)
    body = promotions.graph(signature=signature)
    found = await decided(store, await published(store, tmp_path, "two", data=data, body=body))
    assert (found.decision.verdict, failed(found)) == ("hold", ["signature"])
    assert "signature: output 'answer' is gone" in found.decision.sentence


async def test_old_data_is_held_back(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    found = await decided(store, await published(store, tmp_path, "two", data=made(1, last="2026-01-30")))
    assert failed(found) == ["days_newer"]


async def test_a_slower_and_larger_version_is_over_budget(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    body = promotions.graph(0.01, layers=8)
    found = await decided(store, await published(store, tmp_path, "two", data=made(1), body=body, rules=Rules()))
    assert {"latency_p50", "cost_1k", "resident"} <= set(failed(found))
    costs = {gate.name: gate for gate in found.decision.gates}
    assert costs["latency_p50"].measured is not None
    assert costs["latency_p50"].measured > 2
    assert "against" in costs["cost_1k"].detail
    assert {"newest brier", "frozen brier"}.isdisjoint(failed(found))


async def test_a_slice_that_suffers_holds_the_whole_back(store: ObjectStore, tmp_path: Path):
    """Better for most, and much worse for every third: its targets are the other way around."""
    test = split(3000, 8)
    third = np.arange(3000) % 3 == 0
    test = Split(test.inputs, np.where(third, 1 - test.targets, test.targets).astype(np.float32))
    data = msgspec.structs.replace(
        made(1, test=test), slices={"third": third, "rest": ~third, "few": third & (np.arange(3000) < 300)}
    )
    await decided(store, await published(store, tmp_path, "one", error=-1.0))
    found = await decided(store, await published(store, tmp_path, "two", data=data))
    assert "newest slice" in failed(found)
    detail = next(gate.detail for gate in found.decision.gates if gate.name == "newest slice")
    assert "worst is 'third', 1,000 rows" in detail
    assert "2 slices judged, 1 too small" in detail


async def test_an_objective_without_a_metric_needs_a_person(store: ObjectStore, tmp_path: Path):
    asked = objectives.untargeted("classify")
    await decided(store, await published(store, tmp_path, "one", objective=asked))
    found = await decided(store, await published(store, tmp_path, "two", objective=asked, data=made(1)))
    assert failed(found) == ["label_shift", "frozen metric", "newest metric"]


async def test_an_error_in_the_targets_unit_counts_as_a_share(store: ObjectStore, tmp_path: Path):
    """Targets in thousands: 1 % of the champion's error is allowed, however many units that is."""
    asked = msgspec.structs.replace(objectives.regression(), metrics=(metrics.RMSE,))
    rules = msgspec.structs.replace(QUICK, label_shift_max=9.0)

    def thousands(seed: int) -> Split:
        rows = split(600, seed)
        return Split(rows.inputs, (rows.inputs["features"] @ promotions.TRUTH) * 1000)

    data = made(1, test=thousands(3), train=thousands(4))
    await decided(store, await published(store, tmp_path, "one", objective=asked, data=data, rules=rules))
    data = made(2, test=thousands(5), train=thousands(6))
    found = await decided(
        store, await published(store, tmp_path, "two", WORSE, objective=asked, data=data, rules=rules)
    )
    assert found.decision.verdict == "promote", found.decision.sentence
    newest = found.decision.judged[1]
    assert newest.champion["rmse"] > 500
    assert abs(newest.gains["rmse"][0]) < 0.01


async def test_a_challenger_answers_whatever_the_comparison_says(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    worse = await published(store, tmp_path, "two", error=WORSE, data=made(1), alias="challenger")
    found = await decided(store, worse)
    assert found.decision.verdict == "promote"
    assert "as champion it would be held back: frozen brier gains" in found.decision.sentence
    assert [gate.passed for gate in found.decision.gates if gate.name == "newest brier"] == [False]
    assert (await Registry(store).alias(MODEL, "challenger")).promotion.version == 2
    assert await champion(store) == 1


async def test_a_challenger_must_reach_the_floor(store: ObjectStore, tmp_path: Path):
    rules = msgspec.structs.replace(QUICK, floors={"brier": 0.25})
    await decided(store, await published(store, tmp_path, "one"))
    worse = await published(store, tmp_path, "two", WORSE, data=made(1), alias="challenger", rules=rules)
    assert failed(await decided(store, worse)) == ["floor brier"]


async def test_the_same_run_again_decides_nothing_anew(store: ObjectStore, tmp_path: Path):
    one = await published(store, tmp_path, "one")
    first = await decided(store, one)
    again = await decided(store, one, now_ns=NOW_NS + S)
    assert again == first
    assert len(await Registry(store).history(MODEL)) == 1


async def test_what_a_person_promoted_after_all_is_not_held_back_again(store: ObjectStore, tmp_path: Path):
    await decided(store, await published(store, tmp_path, "one"))
    two = await published(store, tmp_path, "two", error=WORSE, data=made(1))
    assert (await decided(store, two)).decision.verdict == "hold"
    author = releasing.Author("boss", "I know better", NOW_NS)
    await releasing.promote(store, model=MODEL, alias="champion", version=2, author=author)
    found = await decided(store, two)
    assert found.decision.sentence == "version 2 answers already: I know better"
    assert len(await Registry(store).history(MODEL)) == 2


async def test_a_decision_that_cannot_be_read_is_made_again(store: ObjectStore, tmp_path: Path):
    await store.put_if_absent(layout.decision("one"), b"{torn")
    found = await decided(store, await published(store, tmp_path, "one"))
    assert await stored(store, "one") == found.decision


async def test_a_cooldown_holds_back_what_is_fine_otherwise(store: ObjectStore, tmp_path: Path):
    rules = msgspec.structs.replace(QUICK, cooldown_s=3600.0)
    await decided(store, await published(store, tmp_path, "one"))
    two = await published(store, tmp_path, "two", error=0.01, data=made(1), rules=rules)
    assert failed(await decided(store, two, now_ns=NOW_NS + 3599 * S)) == ["cooldown_s"]
    assert (await decided(store, two, now_ns=NOW_NS + 3600 * S)).decision.verdict == "promote"


async def test_who_loses_a_race_is_compared_with_the_winner(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both look at version 1; while version 3 is judged, version 2 takes over, which it is worse than."""
    await decided(store, await published(store, tmp_path, "one", error=WORSE))
    best = await published(store, tmp_path, "two", data=made(1))
    middle = await published(store, tmp_path, "three", error=-1.0, data=made(2))
    real, calls = decision.in_thread, []

    async def overtaken(*args: object) -> object:
        judged = await real(*args)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 1:
            assert (await decided(store, best)).promotion
        return judged

    monkeypatch.setattr(decision, "in_thread", overtaken)
    found = await decided(store, middle)
    assert (found.decision.verdict, found.decision.champion_version) == ("hold", 2)
    assert await champion(store) == 2
    assert [entry.version for entry in await Registry(store).history(MODEL)] == [1, 2]


async def test_an_alias_behind_its_log_is_no_reason_to_compare_with_the_old_champion(
    store: ObjectStore, tmp_path: Path
):
    """A crash between log and alias: the log says version 2 already."""
    first = await decided(store, await published(store, tmp_path, "one", error=WORSE))
    await decided(store, await published(store, tmp_path, "two", data=made(1)))
    key = layout.alias(MODEL, "champion")
    assert first.promotion
    await store.put_if_match(key, codec.encode(first.promotion), (await store.get(key)).etag)
    found = await decided(store, await published(store, tmp_path, "three", error=-1.0, data=made(2)))
    assert (found.decision.verdict, found.decision.champion_version) == ("hold", 2)
    found = await decided(store, await published(store, tmp_path, "four", error=0.01, data=made(3)))
    assert (found.decision.verdict, await champion(store)) == ("promote", 4)

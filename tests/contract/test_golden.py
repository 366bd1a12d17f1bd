"""Stored bytes are for ever: every file in `golden/` must decode, and decode to what it meant when it was written.

A new schema version adds files here; none is ever changed or removed.
"""

from pathlib import Path

import msgspec
import pytest

from gateway.contract import (
    access,
    codec,
    corrections,
    features,
    ledger,
    manifest,
    promotions,
    registry,
    runs,
    schedules,
)
from gateway.contract import golden as golden_vectors
from gateway.errors import ManifestInvalid

GOLDEN = Path(__file__).parent / "golden"
KINDS: dict[str, type[msgspec.Struct]] = {
    "manifest": manifest.Manifest,
    "examples": manifest.Examples,
    "version": registry.VersionRecord,
    "promotion": registry.Promotion,
    "vectors": golden_vectors.Golden,
    "profile": features.FeatureProfile,
    "window": features.FeatureWindow,
    "open": ledger.Open,
    "close": ledger.Close,
    "correction": corrections.Posted,
    "key": access.KeyRecord,
    "spend": access.SpendRecord,
    "run": runs.RunRecord,
    "attempt": runs.AttemptRecord,
    "attemptend": runs.AttemptEnd,
    "heartbeat": runs.Heartbeat,
    "cancel": runs.Cancellation,
    "stage": runs.StageRecord,
    "charge": runs.TrainingCharge,
    "scheduleclaim": schedules.ScheduleClaim,
    "schedulelease": schedules.ScheduleLease,
    "submission": schedules.Submission,
    "decision": promotions.Decision,
}


def golden() -> list[Path]:
    return sorted(GOLDEN.glob("*.json"))


def kind_of(path: Path) -> type[msgspec.Struct]:
    return KINDS[path.name.split("-")[0]]


@pytest.mark.parametrize("path", golden(), ids=lambda path: path.name)
def test_a_golden_file_decodes_and_encodes_to_the_same_bytes(path: Path) -> None:
    data = path.read_bytes()
    assert codec.encode(codec.decode(data, kind_of(path))) == data


@pytest.mark.parametrize("path", golden(), ids=lambda path: path.name)
def test_a_field_added_later_is_tolerated(path: Path) -> None:
    tree = msgspec.json.decode(path.read_bytes())
    tree["added_in_a_later_release"] = {"x": 1}
    assert codec.decode(msgspec.json.encode(tree), kind_of(path)) == codec.decode(path.read_bytes(), kind_of(path))


@pytest.mark.parametrize("path", golden(), ids=lambda path: path.name)
def test_a_newer_schema_is_refused_by_name(path: Path) -> None:
    tree = msgspec.json.decode(path.read_bytes())
    tree["schema_version"] = 99
    with pytest.raises(ManifestInvalid, match="schema_version 99; this Steelyard reads up to"):
        codec.decode(msgspec.json.encode(tree), kind_of(path))


def test_every_kind_has_a_golden_file() -> None:
    assert {path.name.split("-")[0] for path in golden()} == set(KINDS)


def test_ledger_lines_keep_their_meaning() -> None:
    lines = (GOLDEN / "segment-v1.jsonl").read_bytes().splitlines()
    decoder = msgspec.json.Decoder(ledger.Line)
    header, charge, posting, request = (decoder.decode(line) for line in lines)
    assert isinstance(header, ledger.Segment)
    assert (header.container, header.seq, header.cost_picousd) == ("c0ffee", 7, 22488889)
    assert isinstance(charge, ledger.Charge)
    assert (charge.sku, charge.cost_picousd) == ("fargate-x86/vcpu", 22488889)
    assert isinstance(posting, ledger.Posting)
    assert (posting.account, posting.outcome, posting.rows) == ("infer", "ok", 3)
    assert isinstance(request, ledger.Request)
    assert (request.id, request.cpu_ns, request.cost_picousd) == ("c0ffee-1", 2000000, 22488889)


def test_a_posting_keeps_the_phases_of_a_start() -> None:
    line = (GOLDEN / "posting-phases-v1.jsonl").read_bytes().strip()
    posting = msgspec.json.decode(line, type=ledger.Line)
    assert isinstance(posting, ledger.Posting)
    assert posting.phases is not None
    assert (posting.account, posting.phases.imports_ns, posting.phases.ready_ns) == ("boot", 310_000_000, 402_000_000)
    assert posting.phases.warm_up_ns == 0
    assert msgspec.json.encode(posting) == line


def test_a_correction_keeps_its_meaning_and_its_id() -> None:
    read = codec.decode((GOLDEN / "correction-v1.json").read_bytes(), corrections.Posted)
    assert corrections.problems(read) == ()
    assert [(line.reason, line.cost_picousd) for line in read.corrections] == [
        ("price", -10),
        ("quantity", 1000),
        ("price", 1000),
    ]


def test_a_line_of_metrics_keeps_its_meaning() -> None:
    line = (GOLDEN / "metrics-v1.jsonl").read_bytes().strip()
    decoded = msgspec.json.decode(line, type=runs.MetricLine)
    assert (decoded.step, decoded.values) == (250, {"loss": 0.5, "grad_norm": None})
    assert msgspec.json.encode(decoded) == line


def test_a_manifest_from_before_attempts_were_kept_has_none() -> None:
    old = codec.decode((GOLDEN / "manifest-v1.json").read_bytes(), manifest.Manifest).training_cost
    assert old.attempts is old.wasted_picousd is msgspec.UNSET
    new = codec.decode((GOLDEN / "manifest-attempts-v1.json").read_bytes(), manifest.Manifest).training_cost
    assert new.attempts
    assert (new.attempts[0].market, new.attempts[0].steps_lost, new.wasted_picousd) == ("spot", 50, 26_300_000_000)


def test_records_of_training_from_before_use_was_kept_have_none_and_newer_ones_keep_its_meaning() -> None:
    for kind, field in ((runs.AttemptRecord, "allotted"), (runs.TrainingCharge, "use")):
        old = codec.decode((GOLDEN / f"{_OLD[kind]}-v1.json").read_bytes(), kind)
        assert getattr(old, field) is msgspec.UNSET
    ended = codec.decode((GOLDEN / "attemptend-v1.json").read_bytes(), runs.AttemptEnd)
    assert ended.progress.cpu_ns is msgspec.UNSET
    use = codec.decode((GOLDEN / "charge-use-v1.json").read_bytes(), runs.TrainingCharge).use
    assert isinstance(use, runs.MachineUse)
    assert (use.held_ns, use.cpu_ns, use.gpu, use.gpus) == (400 * 10**9, 1200 * 10**9, "Tesla T4", 1)
    assert (use.gpu_busy_ns, use.gpu_energy_nj) == (300 * 10**9, 21_000 * 10**9)
    allotted = codec.decode((GOLDEN / "attempt-allotted-v1.json").read_bytes(), runs.AttemptRecord).allotted
    assert allotted == use.allotted == runs.Allotment("x86", 4000, 16 << 30, "us-east-1")
    cost = codec.decode((GOLDEN / "manifest-use-v1.json").read_bytes(), manifest.Manifest).training_cost
    assert cost.attempts
    assert [attempt.use for attempt in cost.attempts] == [use, *[msgspec.UNSET] * (len(cost.attempts) - 1)]


_OLD: dict[type[msgspec.Struct], str] = {runs.AttemptRecord: "attempt", runs.TrainingCharge: "charge"}


def test_a_decision_keeps_its_meaning_and_its_digest() -> None:
    read = codec.decode((GOLDEN / "decision-v1.json").read_bytes(), promotions.Decision)
    assert (read.verdict, read.version, read.champion_version) == ("hold", 5, 4)
    assert [gate.name for gate in read.failed] == ["newest roc_auc"]  # what is no condition holds nothing back
    assert (read.gates[2].passed, read.gates[2].measured, read.judged[0].excluded) == (False, None, 4960)
    assert read.report_sha256 == codec.sha256(codec.encode(msgspec.structs.replace(read, report_sha256="")))


def test_writing_refuses_what_reading_would_refuse() -> None:
    record = registry.VersionRecord(
        model="../up", version=1, manifest_sha256="0" * 64, manifest_size=1, published_ns=0, run_id="r"
    )
    with pytest.raises(ManifestInvalid, match="model"):
        codec.encode(record)


def test_an_unknown_key_in_a_hand_written_tree_is_named_with_its_path() -> None:
    tree = {"rows": [{"a": 1}], "outcomes": [True], "rowz": []}
    with pytest.raises(msgspec.ValidationError, match=r"unknown key `\$\.rowz`"):
        codec.convert_strict(tree, manifest.Examples)


def test_a_model_of_text_keeps_its_meaning_and_others_their_bytes() -> None:
    read = codec.decode((GOLDEN / "manifest-text-v1.json").read_bytes(), manifest.Manifest)
    assert isinstance(read.text, manifest.TextInput)
    assert (read.text.column, read.text.length_max, read.text.tensors) == ("text", 16, ("input_ids", "attention_mask"))
    assert read.tokenizer is not None
    assert (read.tokenizer.name, read.tokenizer.role) == ("tokenizer.json", "tokenizer")
    older = codec.decode((GOLDEN / "manifest-v1.json").read_bytes(), manifest.Manifest)
    assert (older.text, older.tokenizer, older.tokenizer_bytes_max) == (msgspec.UNSET, None, 0)

"""The job spec: what it accepts, that equal specs are equal bytes, and that whatever is wrong is named with its path and line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainers
from tests.support import specs
from trainers.errors import SpecError
from trainers.spec import durations, feasible, jobspec, reading
from trainers.spec.durations import Duration


def paths(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every value in the tree that a field of the spec is."""
    if path[:1] == ("params",) and len(path) == 2:
        return
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from paths(value, (*path, key))


FIELDS = [path for path in paths(specs.FULL) if path[-1] not in ("1", "8")]
TABLES: list[tuple[str | int, ...]] = [
    (),
    *[path for path in FIELDS if isinstance(path[-1], int) and path[0] == "data"],
    *[(name,) for name, value in specs.FULL.items() if isinstance(value, dict) and name != "params"],
]


def at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def refused(tree: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        reading.parse(specs.toml(tree), source="job.toml")
    return str(caught.value)


# --- what is right


def test_a_full_spec_keeps_what_it_says() -> None:
    spec = reading.parse(specs.toml(specs.full()), source="job.toml")
    assert (spec.name, spec.resources.gpu, spec.resources.memory_gb) == ("flights-delay", 1, 15.5)
    assert (spec.limits.wall.seconds, spec.checkpoint.every.seconds) == (12 * 3600, None)
    assert spec.target.weights == {1: 0.7, 8: 0.3}
    assert spec.data[0].max_age == "7d"
    assert spec.schedule is not None
    assert spec.schedule.timezone == "Europe/Paris"


def test_its_canonical_json_reads_back_and_has_a_stable_digest() -> None:
    spec = reading.parse(specs.toml(specs.full()), source="job.toml")
    assert reading.submitted(jobspec.canonical(spec), source="environment") == spec
    golden = Path("tests/contract/golden/launch/jobspec-v1.json").read_bytes()
    assert jobspec.canonical(spec) == golden.strip()
    assert jobspec.spec_sha256(spec) == jobspec.spec_sha256(reading.submitted(golden, source="golden"))


def test_equal_specs_have_equal_digests_however_they_are_written() -> None:
    hours, minutes = specs.full(), specs.full()
    hours["limits"]["wall"], minutes["limits"]["wall"] = "12h", "720m"
    minutes["resources"]["disk_gb"] = 50.0
    reordered = dict(reversed(minutes.items()))
    reordered["params"] = dict(reversed(minutes["params"].items()))
    digests = {
        jobspec.spec_sha256(reading.parse(specs.toml(tree), source="")) for tree in (specs.full(), hours, reordered)
    }
    assert len(digests) == 1


def test_writing_down_a_default_changes_nothing() -> None:
    short = reading.from_options({"recipe": "flights"})
    tree = json.loads(jobspec.canonical(short))
    written = {key: value for key, value in tree.items() if value is not None}
    assert written["resources"].pop("memory_gb") == 4
    assert jobspec.canonical(reading.submitted(json.dumps(written | {"resources": {"memory_gb": 4}}), source="")) == (
        jobspec.canonical(short)
    )


def test_options_alone_make_a_spec_named_after_its_recipe() -> None:
    spec = reading.from_options({"recipe": "acme.models:Churn", "limits.wall": "7h", "image": None})
    assert (spec.name, spec.limits.wall, spec.image) == ("churn", "7h", None)


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(specs.toml(specs.full()))
    spec = reading.read(path, {"resources.gpu": 2, "resources.gpu_memory_gb": None, "promote.to": "none"})
    assert (spec.resources.gpu, spec.promote.to, spec.resources.cpu) == (2, "none", 4)


@given(st.integers(1, durations.DURATION_S_MAX))
def test_every_length_of_time_has_one_text(seconds: int) -> None:
    text = durations.duration(f"{seconds}s")
    assert text.seconds == seconds
    assert durations.duration(text) == text


@pytest.mark.parametrize(
    "text", ["", "12", "h", "1.5h", "-1h", "12 h", "1h2h", "1m1h", "0s", "367d", "٣s", "1h\n", 12, True, None, 1.0]
)
def test_what_is_no_length_of_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not"):
        durations.duration(text)


# --- what is wrong


@given(
    st.sampled_from(TABLES),
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1, max_size=12),
)
def test_every_unknown_key_is_named_with_its_path_and_line(table: tuple[str | int, ...], key: str) -> None:
    tree = specs.full()
    known = set(at(tree, table))
    if key in known:
        return
    at(tree, table)[key] = 1
    text = specs.toml(tree)
    message = refused(tree)
    line = int(message.split("line ")[1].split(":")[0])
    assert reading.dotted((*table, key)) in message
    assert f"{json.dumps(key)} = 1" == text.split("\n")[line - 1]


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ((), "recipie", "did you mean `recipe`?"),
        (("limits",), "attempts", "did you mean `limits.attempt`?"),
        (("data", 1), "sha265", "did you mean `data[1].sha256`?"),
        ((), "wall", "did you mean `limits.wall`?"),
        (("promote",), "zzz", "`promote` has: to, require_manual"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_there_is(
    table: tuple[str | int, ...], key: str, hint: str
) -> None:
    tree = specs.full()
    at(tree, table)[key] = 1
    assert hint in refused(tree)


WRONG: list[Any] = [-1, -0.5, math.nan, math.inf, "", " ", "12 parsecs", [1], {"a": 1}, 10**30, "x" * 2000]


def test_a_word_that_is_none_of_a_fields_is_answered_with_those() -> None:
    message = refused({"recipe": "flights", "promote": {"to": "champ"}})
    assert "`promote.to` must be one of 'champion', 'challenger', 'none'; invalid enum value 'champ'" in message
    assert "must be one of 'spot', 'on_demand'; " in refused({"recipe": "flights", "market": {"prefer": "cheap"}})


@pytest.mark.parametrize("path", FIELDS, ids=reading.dotted)
def test_every_wrong_value_is_named_with_its_path_and_line(path: tuple[str | int, ...]) -> None:
    for value in WRONG:
        if path == ("params",) and value == {"a": 1}:
            continue
        tree = specs.full()
        at(tree, path[:-1])[path[-1]] = value
        message = refused(tree)
        assert f"`{reading.dotted(path)}" in message
        assert "job.toml, line " in message
        assert "regex" not in message


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_a_spec_or_a_refusal(tree: Any) -> None:
    with pytest.raises(SpecError):
        reading.submitted(json.dumps(tree), source="environment")


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({"limits": {"wall": "1h", "attempt": "2h"}}, "limits.attempt", "longer than limits.wall"),
        ({"limits": {"wall": "1h", "attempt": "30s"}}, "limits.attempt", "at least 60s"),
        ({"checkpoint": {"every": "7h"}}, "checkpoint.every", "would never save"),
        ({"checkpoint": {"grace": "2m"}}, "checkpoint.grace", "more than the 110s"),
        ({"limits": {"max_cost_usd": 0.004}}, "limits.max_cost_usd", "before the first checkpoint"),
        ({"limits": {"max_cost_usd": 1.0}, "checkpoint": {"every": "3h"}}, "limits.max_cost_usd", "g4dn.xlarge"),
        ({"market": {"prefer": "on_demand", "fallback_on_demand_after": "1h"}}, "market.fallback_on_demand_after", ""),
        ({"market": {"fallback_on_demand_after": "2d"}}, "market.fallback_on_demand_after", "not shorter"),
        ({"resources": {"gpu_memory_gb": 16}}, "resources.gpu_memory_gb", "needs resources.gpu"),
        ({"resources": {"gpu": 1, "shm_gb": 8, "memory_gb": 8}}, "resources.shm_gb", "less than"),
        ({"promote": {"to": "none", "require_manual": True}}, "promote.require_manual", "makes no sense"),
        ({"data": [{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]}, "data[1].name", "used twice"),
        ({"data": [{"name": "a", "uri": "/x", "version_id": "v"}]}, "data[0].version_id", "only objects in S3"),
        (
            {"data": [{"name": "a", "uri": "s3://x", "version_id": "v", "sha256": "0" * 64}]},
            "data[0].version_id",
            "not both",
        ),
        ({"schedule": {"cron": "0 0 31 2 *"}}, "schedule.cron", "never happens: February has no day 31"),
        ({"schedule": {"cron": "0 0 * *"}}, "schedule.cron", "has 4 fields"),
        ({"schedule": {"cron": "0 0 * * 1", "timezone": "Europe/Pari"}}, "schedule.timezone", "'Europe/Paris'"),
        ({"schedule": {"cron": "0 0 * * 1", "catch_up": "all"}}, "schedule.catch_up", ""),
    ],
)
def test_settings_that_cannot_all_be_true_are_refused(change: dict[str, Any], path: str, why: str) -> None:
    tree = {"recipe": "flights", "limits": {"wall": "12h"}, "resources": {"gpu": 1}} | change
    message = refused(tree)
    assert f"`{path}`" in message
    assert why in message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**30, [1], {"a": 1}])
def test_a_parameter_is_a_plain_finite_value(value: Any) -> None:
    assert "`params.x" in refused({"recipe": "flights", "params": {"x": value}})


def test_a_job_does_not_judge_again_what_was_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jobspec.canonical(reading.parse(specs.toml(specs.full()), source="job.toml"))
    monkeypatch.setattr(feasible, "_timezones", frozenset)  # an image without a time zone database
    assert reading.submitted(data, source="STEELYARD_SPEC").name == "flights-delay"
    with pytest.raises(SpecError, match="pip install tzdata"):
        reading.parse(specs.toml(specs.full()), source="job.toml")


def test_a_cap_that_pays_for_a_checkpoint_is_accepted() -> None:
    reading.from_options({"recipe": "flights", "resources.gpu": 1, "limits.max_cost_usd": 0.005})


def test_several_problems_are_told_at_once() -> None:
    message = refused({"recipe": "flights", "limitz": 1, "market": {"prefr": 1}})
    assert "`limitz`" in message
    assert "`market.prefr`" in message


def test_a_line_is_found_in_inline_tables_and_long_arrays() -> None:
    text = 'recipe = "flights"\n# data\ndata = [\n  {name = "a", uri = "x"},\n  {name = "b", urii = "y"},\n]\n'
    with pytest.raises(SpecError, match=r"job\.toml, line 5: `data\[1\]\.urii`"):
        reading.parse(text, source="job.toml")


def test_a_missing_field_points_at_its_table() -> None:
    with pytest.raises(SpecError, match=r"line 3: `data\[0\]` object missing required field `name`"):
        reading.parse('recipe = "flights"\n\n[[data]]\nuri = "a"\n', source="job.toml")


def test_what_is_no_toml_or_no_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"job\.toml is not TOML: .*line 1"):
        reading.parse("recipe = =\n", source="job.toml")
    with pytest.raises(SpecError, match="No such file"):
        reading.read(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not text in UTF-8"):
        reading.read(tmp_path / "binary.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * 70_000)
    with pytest.raises(SpecError, match="larger than"):
        reading.read(tmp_path / "large.toml")


def test_a_spec_that_would_not_fit_a_jobs_environment_is_refused() -> None:
    params = {f"p{i}": "x" * 100 for i in range(90)}
    assert "shorten params" in refused({"recipe": "flights", "params": params})


def test_options_that_contradict_the_files_shape_are_refused() -> None:
    with pytest.raises(SpecError, match="`recipe` must be a table"):
        reading.from_options({"recipe": "flights", "recipe.name": "x"})


def test_durations_compare_as_their_text() -> None:
    assert durations.duration("60m") == Duration("1h")


def test_the_example_of_the_documentation_can_be_read() -> None:
    text = (Path(trainers.__file__).parent / "README.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0].replace("sha256:...", f"sha256:{'0' * 64}")
    spec = reading.parse(example, source="job.toml")
    assert spec.data[0].name == "nycflights13/flights.csv"

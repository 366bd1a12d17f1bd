"""Which recipe a name means: one that ships here, `flights`, or one of your own, `my_package.recipes:churn`.

A recipe is a function that returns a `TrainJob`. What can be set about it are its parameters of a plain type, by name:
`def churn(*, days: int = 30) -> TrainJob`; those named like a field of `Fit` are the run's to set. Nothing is imported before it is
asked for.
"""

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec

from trainers.errors import SpecError
from trainers.job import Fit, TrainJob

Value = str | float | bool
"""Whole numbers are floats to the type checker and stay whole."""

RECIPES = {
    "flights": "trainers.recipes.flights:flights",
    "mnist5k": "trainers.recipes.mnist5k:mnist5k",
    "appliances": "trainers.recipes.appliances:appliances",
    "newsgroups": "trainers.recipes.newsgroups:newsgroups",
}
KINDS = (str, int, float, bool)
FINITE = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Parameter(msgspec.Struct, frozen=True):
    """`kind` is `str`, `int`, `float` or `bool`."""

    name: str
    kind: type
    default: Value


class Described(msgspec.Struct, frozen=True):
    """What can be said about a recipe without its data. `summary` is the first line of its docstring, `text` all of it and of its
    module's, which says where the data is from."""

    recipe: str
    summary: str
    text: str
    parameters: tuple[Parameter, ...]


def job(recipe: str, parameters: Mapping[str, Value] | None = None) -> TrainJob:
    """The job that `recipe` makes with these parameters; strings, as from a command line, are read as the parameter's type.

    All parameters, given or not, are in the job's own, by the recipe's word where it says one. Raises `SpecError` when there is no
    such recipe or parameter, when a value is of another type, or when what the recipe returns is not a job.
    """
    function = _function(recipe)
    known = _parameters(recipe, function)
    given = {name: _converted(recipe, _named(recipe, name, known), value) for name, value in (parameters or {}).items()}
    made = function(**given)
    if not isinstance(made, TrainJob):
        raise SpecError(f"recipe '{recipe}' returned {type(made).__name__}, not a TrainJob")
    used = {parameter.name: given.get(parameter.name, parameter.default) for parameter in known}
    return msgspec.structs.replace(made, parameters=used | dict(made.parameters))


def described(recipe: str) -> Described:
    """Raises `SpecError` when there is no such recipe."""
    function = _function(recipe)
    own = inspect.getdoc(function) or ""
    about = inspect.getdoc(inspect.getmodule(function)) or ""
    return Described(recipe, own.partition("\n")[0], f"{own}\n\n{about}".strip(), _parameters(recipe, function))


def all_described() -> tuple[Described, ...]:
    """Those that ship here. Takes seconds: each imports what it trains with."""
    return tuple(map(described, RECIPES))


def _function(recipe: str) -> Callable[..., object]:
    module_name, colon, function_name = RECIPES.get(recipe, recipe).partition(":")
    if not (module_name and colon and function_name):
        raise SpecError(
            f"no recipe '{recipe}'{_nearest(recipe, RECIPES)}; there are: {', '.join(RECIPES)}, "
            "or your own as 'package.module:function'"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever it does when it is imported is wrong in the recipe, not here
        raise SpecError(f"recipe '{recipe}': cannot import '{module_name}': {_located(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SpecError(f"recipe '{recipe}': '{module_name}' has no function '{function_name}'")
    return function  # type: ignore[no-any-return]  # getattr knows no types


def _located(error: Exception) -> str:
    """The error, and where: what runs when a module is imported is often several files away from the recipe."""
    if isinstance(error, (ImportError, SyntaxError)):  # these say it themselves
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def _parameters(recipe: str, function: Callable[..., object]) -> tuple[Parameter, ...]:
    """What has a plain type and a default. Raises `SpecError` for a function that cannot be called without arguments."""
    try:
        kinds = get_type_hints(function)
    except NameError as error:
        raise SpecError(f"recipe '{recipe}': an annotation is not defined: {error}") from error
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is inspect.Parameter.empty:
            raise SpecError(f"recipe '{recipe}': its parameter '{parameter.name}' needs a default")
        is_settable = kinds.get(parameter.name) in KINDS and parameter.name not in Fit.__struct_fields__
        if is_settable and parameter.kind in BY_NAME:
            found.append(Parameter(parameter.name, kinds[parameter.name], parameter.default))
    return tuple(found)


def _named(recipe: str, name: str, known: tuple[Parameter, ...]) -> Parameter:
    for parameter in known:
        if parameter.name == name:
            return parameter
    names = [parameter.name for parameter in known]
    there_are = f"there are: {', '.join(names)}" if names else "it has none"
    raise SpecError(f"recipe '{recipe}' has no parameter '{name}'{_nearest(name, names)}; {there_are}")


def _converted(recipe: str, parameter: Parameter, value: Value) -> Any:  # Any: the parameter's own type
    kind = FINITE if parameter.kind is float else parameter.kind
    try:
        if parameter.kind is bool and isinstance(value, str):
            return BOOLEANS[value.strip().lower()]
        return msgspec.convert(value, kind, strict=not isinstance(value, str) or parameter.kind is str)
    except (KeyError, msgspec.ValidationError) as error:
        what = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[parameter.kind]
        raise SpecError(f"recipe '{recipe}': '{parameter.name}' must be {what}, not {value!r}") from error


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f", did you mean '{close[0]}'?" if close else ""

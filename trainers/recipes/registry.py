"""Which recipe a name means: one that ships here, `flights`, or one of your own, `my_package.recipes:churn`.

A recipe is a function without arguments that returns a `TrainJob`. Nothing is imported before it is asked for.
"""

import importlib

from trainers.errors import SpecError
from trainers.job import TrainJob

RECIPES = {"flights": "trainers.recipes.flights:flights"}


def job(recipe: str) -> TrainJob:
    """The job that `recipe` describes. Raises `SpecError` when there is no such recipe or it does not return a job."""
    module_name, colon, function_name = RECIPES.get(recipe, recipe).partition(":")
    if not (module_name and colon and function_name):
        raise SpecError(
            f"no recipe '{recipe}'; there are: {', '.join(RECIPES)}, or your own as 'package.module:function'"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SpecError(f"recipe '{recipe}': cannot import '{module_name}': {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SpecError(f"recipe '{recipe}': '{module_name}' has no function '{function_name}'")
    made = function()
    if not isinstance(made, TrainJob):
        raise SpecError(f"recipe '{recipe}' returned {type(made).__name__}, not a TrainJob")
    return made

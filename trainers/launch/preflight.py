"""What is checked before another machine is asked for: image, data and recipe. A mistake here costs a second and not an instance.

Nothing of the user's is imported: the recipe's module is found and read, for the machine that submits need not have torch.
"""

import ast
import importlib.util
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

from trainers.errors import SpecError
from trainers.spec.jobspec import JobSpec

_DIGESTED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def check_remote(spec: JobSpec, *, store: str, on: str) -> None:
    """Raises `SpecError` naming what to change."""
    if spec.image is None:
        raise SpecError(
            f"`image` is missing: on {on} a job runs in an image, named with its digest: registry/train@sha256:..."
        )
    if not _DIGESTED.fullmatch(spec.image):
        raise SpecError(
            f"`image` {spec.image} has no digest: on {on} a tag may be another image at the next attempt; write name@sha256:..."
        )
    for index, pin in enumerate(spec.data):
        if pin.uri and ("://" not in pin.uri or pin.uri.startswith("file:")):
            raise SpecError(
                f"`data[{index}].uri` {pin.uri} is on this machine; on {on} data comes from s3:// or https://"
            )
    if not store.startswith("s3://"):
        raise SpecError(f"store {store} is on this machine; on {on} a job needs a bucket: --store s3://bucket/prefix")
    check_recipe(spec.recipe)


def check_recipe(recipe: str) -> None:
    """Raises `SpecError` when there is no such built-in, or no such function in a module that can be found."""
    module, colon, function = recipe.partition(":")
    if not colon:
        from trainers.recipes.registry import RECIPES  # torch comes with it; a user's recipe does without

        if recipe not in RECIPES:
            raise SpecError(
                f"no recipe '{recipe}'; there are: {', '.join(RECIPES)}, or your own as 'package.module:function'"
            )
        return
    found = _found(module, recipe)
    source = Path(found.origin) if found.origin and found.origin.endswith(".py") else None
    if source and not _names(source) & {function, "*", "__getattr__"}:
        raise SpecError(f"recipe '{recipe}': '{module}' has no function '{function}'")


def _found(module: str, recipe: str) -> ModuleSpec:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError) as error:
        raise SpecError(f"recipe '{recipe}': cannot import '{module}': {error}") from error
    if found is None:
        raise SpecError(f"recipe '{recipe}': there is no module '{module}' here; install it, or run from its folder")
    return found


def _names(source: Path) -> set[str]:
    """What the module binds, generously: `*` and `__getattr__` among them mean that it may bind anything."""
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise SpecError(f"{source.name} cannot be read as Python: {error}") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names

"""TOML and environment to typed options. Knows nothing about what the options mean; `gateway.settings` does.

Later sources win: defaults in the struct, the file, the environment, explicit overrides (command-line flags).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import msgspec
from msgspec import Meta

from gateway.contract import codec
from gateway.errors import SettingsError

T = TypeVar("T", bound=msgspec.Struct)

Amount = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, Meta(ge=0, le=2**50)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Timeout = Annotated[float, Meta(gt=0, le=86_400)]
"""What options are made of: something of which there must be one at least, a size, and times of at most a day."""

NUMBER_MAX = 2**53
"""Beyond it a float is no exact integer any more, and no option means such a number."""
Tree = dict[str, Any]  # Any: a TOML document is a tree of plain values, checked when it becomes a struct


def load(
    kind: type[T],
    *,
    path: Path | None,
    environ: Mapping[str, str],
    prefix: str,
    overrides: Mapping[str, Any] | None = None,
) -> T:
    """Options of this kind. `STEELYARD_SERVER__PORT=80` sets `server.port` for the prefix `STEELYARD_`; lists are split at commas.

    A variable with the prefix and without `__` counts only when it names a top-level option: the prefix is not ours alone.
    `overrides` maps dotted names to values; a None is skipped. Raises `SettingsError` naming the source and the key.
    """
    tree: Tree = _read(path) if path else {}
    _check(tree, kind, str(path))
    options = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name, text in environ.items():
        dotted = name.removeprefix(prefix).lower().replace("__", ".")
        if name.startswith(prefix) and ("." in dotted or dotted in options):
            _set(tree, dotted, text.split(",") if _is_list(kind, dotted) else text, name)
            _check(tree, kind, f"environment variable {name}")
    for dotted, value in (overrides or {}).items():
        if value is not None:
            _set(tree, dotted, value, dotted)
    return _check(tree, kind, "options")


def _is_list(kind: Any, dotted: str) -> bool:  # Any: the type of a field, a struct or not
    """Whether this option takes several values; an unknown one does not."""
    for name in dotted.split("."):
        is_section = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        fields = msgspec.structs.fields(kind) if is_section else ()
        kind = next((field.type for field in fields if field.name == name), None)
    return get_origin(kind) is tuple


def _read(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _set(tree: Tree, dotted: str, value: Any, source: str) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{source}: '{parent}' is not a section")
    tree[leaf] = value


def _check(tree: Tree, kind: type[T], source: str) -> T:
    """Environment values are text, so `"8080"` may stand for 8080 (`strict=False`); unknown keys never pass."""
    try:
        value = codec.convert_strict(tree, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {error}") from error
    if unsound := _unsound(msgspec.to_builtins(value), "$"):
        raise SettingsError(f"{source}: `{unsound}` is no number that an option can have")
    return value


def _unsound(value: Any, path: str) -> str:  # Any: a tree of plain values
    """The path of the first number that is not finite or too large; "" when there is none."""
    if isinstance(value, Mapping):
        return next((found for key in value if (found := _unsound(value[key], f"{path}.{key}"))), "")
    if isinstance(value, int | float) and not abs(value) <= NUMBER_MAX:  # not a number is not smaller than anything
        return path
    return ""

"""From a TOML file, JSON or command-line options to a checked `JobSpec`. The only door: what passes it can be submitted.

Every refusal is a `SpecError` that names the file, the line, the path and what to write instead, and comes before anything starts.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, get_args  # Any: a TOML document is a tree of plain values, checked when it becomes a struct

import msgspec

from gateway.contract import prices
from gateway.contract.words import NAME_RULE, is_name
from trainers.errors import SpecError
from trainers.spec import feasible, lines
from trainers.spec.jobspec import JobSpec, canonical, decode_hook

Tree = dict[str, Any]

FILE_BYTES_MAX = 65_536
"""Ten times the largest spec that can be launched; whatever is larger is another file."""

NUMBER_MAX = 2**53
"""Up to here every integer is a float too."""

FINDINGS_MAX = 5
"""So many problems are told at once."""

RULES = {
    "version": "must be 1, the only version of the format there is",
    "name": f"must be {NAME_RULE}",
    "recipe": "must be the name of a built-in recipe or 'package.module:function'",
    "image": "must be an image reference without spaces, such as registry/train@sha256:<64 hex digits>",
    "sha256": "must be 64 lower case hex digits",
    "uri": "must be a path or URL without spaces",
    "version_id": "must be a version id without spaces",
    "flags": "must be names of CPU flags as /proc/cpuinfo writes them, such as 'avx512_vnni'",
    "sku": "must be a machine type, such as 'c7i.large'",
    "batch_mix": 'a batch size must be a whole number of rows, as in {"1" = 0.7, "8" = 0.3}',
    "params": "a parameter's name must be an identifier: letters, digits and '_', the first no digit",
}
"""What msgspec would say with a regular expression."""

_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


def read(path: Path, options: Mapping[str, Any] | None = None) -> JobSpec:
    """The spec in a TOML file; `options` (dotted name to value, a None is skipped) win over it. Raises `SpecError`."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise SpecError(f"{path} is larger than {FILE_BYTES_MAX:,} bytes; a job spec is a short TOML file")
        text = data.decode()
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not text in UTF-8: {error}") from error
    return parse(text, source=str(path), options=options)


def parse(text: str, *, source: str, options: Mapping[str, Any] | None = None) -> JobSpec:
    """The spec in a TOML text; `source` is what messages call it. Raises `SpecError`."""
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"{source} is not TOML: {error}") from error
    return _checked(_with(tree, options or {}), source, text)


def from_options(options: Mapping[str, Any]) -> JobSpec:
    """A spec without a file: `{"recipe": "flights", "limits.wall": "2h"}`; a None is skipped. Raises `SpecError`."""
    return _checked(_with({}, options), "the command line", "")


def submitted(data: bytes | str, *, source: str) -> JobSpec:
    """The canonical JSON of a spec that was checked when it was submitted, as a job finds it. Raises `SpecError`.

    Its sense is not judged again: the job's machine may have another price book, or no time zones.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{source} is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise SpecError(f"{source} is not a JSON object")
    return _structured(tree, source, "")


def default_name(recipe: str) -> str:
    """The built-in's name, or the function's."""
    return recipe.rpartition(":")[2].lower().lstrip("_")[:63]


def _with(tree: Tree, options: Mapping[str, Any]) -> Tree:
    for dotted, value in options.items():
        if value is not None:
            *sections, leaf = dotted.split(".")
            at: Any = tree
            for section in sections:
                at = at.setdefault(section, {})
                if not isinstance(at, dict):
                    raise SpecError(f"`{section}` must be a table")
            at[leaf] = value
    return tree


def _checked(tree: Tree, source: str, text: str) -> JobSpec:
    spec = _structured(tree, source, text)
    _refuse(feasible.findings(spec, prices.load()), source, text)
    if len(canonical(spec)) > feasible.SPEC_BYTES_MAX:
        raise SpecError(
            f"{source}: the spec is longer than {feasible.SPEC_BYTES_MAX:,} bytes as JSON; shorten params or data"
        )
    return spec


def _structured(tree: Tree, source: str, text: str) -> JobSpec:
    found = [*_unknown(tree, JobSpec, ()), *_unsound(tree, ()), *_not_scalar(tree.get("params"))]
    _refuse(found, source, text)
    recipe = tree.get("recipe")
    if isinstance(recipe, str) and is_name(default_name(recipe)):
        tree = {"name": default_name(recipe), **tree}
    try:
        return msgspec.convert(tree, JobSpec, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        _refuse([_finding(error)], source, text)
        raise AssertionError from error  # _refuse has raised


def _refuse(found: list[feasible.Finding], source: str, text: str) -> None:
    """Raise `SpecError` when anything was found."""
    if found:
        shown = [_sentence(finding, source, text) for finding in found[:FINDINGS_MAX]]
        more = len(found) - len(shown)
        raise SpecError("\n".join(shown) + (f"\n... and {more} more" if more else ""))


def _sentence(finding: feasible.Finding, source: str, text: str) -> str:
    line = _line(text, finding.path) if text else None
    where = f"{source}, line {line}" if line else source
    return f"{where}: `{dotted(finding.path)}` {finding.message}" if finding.path else f"{where}: {finding.message}"


def _line(text: str, path: lines.Path) -> int | None:
    """Of the value, or of the nearest table around it that the file has."""
    return next((line for end in range(len(path), 0, -1) if (line := lines.line_of(text, path[:end]))), None)


def dotted(path: lines.Path) -> str:
    """`data[0].uri`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _finding(error: msgspec.ValidationError) -> feasible.Finding:
    found = _AT.match(str(error))
    assert found is not None  # every text matches
    steps = _STEP.finditer(found["path"] or "")
    path: lines.Path = tuple(step[1] or int(step[2]) for step in steps if step[1] or step[2])
    what = found["what"]
    names = [part for part in path if isinstance(part, str)]
    if "matching regex" in what or (names == ["version"] and "enum" in what):
        return feasible.Finding(path, RULES[names[-1]])
    if "Invalid enum value" in what:
        return feasible.Finding(path, f"must be one of {_choices(names)}; {what[:1].lower()}{what[1:]}")
    return feasible.Finding(path, what[:1].lower() + what[1:])


def _choices(names: list[str]) -> str:
    """The words that the field of this path takes."""
    kind: Any = JobSpec  # an annotation is no class
    for name in names:
        owner = _struct_inside(kind)
        assert owner is not None  # only sections have fields
        kind = next(field.type for field in msgspec.structs.fields(owner) if field.name == name)
    return ", ".join(f"'{word}'" for word in get_args(kind))


def _unknown(tree: Any, kind: type[msgspec.Struct], path: lines.Path) -> Iterator[feasible.Finding]:  # Any: as above
    if not isinstance(tree, dict):
        return  # of the wrong type, which `convert` will say
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in fields:
            yield feasible.Finding((*path, key), f"is no key that a job spec has{_hint(key, path, list(fields))}")
        elif inner := _struct_inside(fields[key]):
            rows = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, row in rows:
                yield from _unknown(row, inner, (*path, key) if index is None else (*path, key, index))


def _hint(key: str, path: lines.Path, known: list[str]) -> str:
    near = get_close_matches(key, known, 1)
    if near:
        return f"; did you mean `{dotted((*path, near[0]))}`?"
    for section in msgspec.structs.fields(JobSpec):
        inner = _struct_inside(section.type)
        if inner and key in inner.__struct_fields__:
            return f"; did you mean `{section.name}.{key}`?"
    return f"; `{dotted(path)}` has: {', '.join(known)}" if path else f"; it has: {', '.join(known)}"


def _struct_inside(kind: Any) -> type[msgspec.Struct] | None:  # Any: an annotation is no class
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in get_args(kind) if (found := _struct_inside(part))), None)


def _unsound(value: Any, path: lines.Path) -> Iterator[feasible.Finding]:  # Any: as above
    """TOML can write `nan` and `inf`, which no comparison finds, and integers that JSON readers take for another number."""
    if isinstance(value, float) and not isfinite(value):
        yield feasible.Finding(path, f"must be a finite number, not {value}")
    elif isinstance(value, int) and abs(value) > NUMBER_MAX:
        yield feasible.Finding(path, "is a number too large to be kept exactly")
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _unsound(inner, (*path, key))


def _not_scalar(params: Any) -> Iterator[feasible.Finding]:  # Any: as above
    """msgspec names the table and not the key."""
    for name, value in params.items() if isinstance(params, dict) else ():
        if not isinstance(value, str | int | float):
            yield feasible.Finding(
                ("params", name), f"must be a number, a text, true or false, not {type(value).__name__}"
            )

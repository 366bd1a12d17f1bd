"""On which line of a TOML text a value stands, which the parser does not tell. Only for messages: called when something is wrong.

Statements are found by parsing: lines are gathered until they parse by themselves. The statement that introduces a path is the one
after the longest beginning of the text that does not have it.
"""

import re
import tomllib
from typing import Any  # Any: a TOML document is a tree of plain values

Path = tuple[str | int, ...]


def line_of(text: str, path: Path) -> int | None:
    """Counted from 1; None when the text does not have the path. Inside a long array, the first line that names the key."""
    lines = text.replace("\r\n", "\n").split("\n")
    starts = _statements(lines)
    low, high = 0, len(starts)
    if not _has(text, path):
        return None
    while low + 1 < high:  # the statements before `high` have the path, those before `low` have not
        middle = (low + high) // 2
        low, high = (low, middle) if _has("\n".join(lines[: starts[middle]]), path) else (middle, high)
    end = starts[high] if high < len(starts) else len(lines)
    return _within(lines, starts[low], end, path) + 1


def _within(lines: list[str], start: int, end: int, path: Path) -> int:
    names = [part for part in path if isinstance(part, str)]
    word = re.compile(rf"(?<![\w-]){re.escape(names[-1])}(?![\w-])") if names else None
    hits = [row for row in range(start, end) if word and word.search(lines[row].split("#")[0])]
    if hits:
        return hits[0]
    return next(
        (row for row in range(start, end) if lines[row].strip() and not lines[row].lstrip().startswith("#")), start
    )


def _statements(lines: list[str]) -> list[int]:
    """The first line of each statement, ascending; blank lines and comments are statements too."""
    starts, first = [], 0
    for row in range(len(lines)):
        try:
            tomllib.loads("\n".join(lines[first : row + 1]))
        except tomllib.TOMLDecodeError:
            continue
        starts.append(first)
        first = row + 1
    return starts


def _has(text: str, path: Path) -> bool:
    tree: Any = tomllib.loads(text)
    for part in path:
        if isinstance(part, int):
            if not isinstance(tree, list) or part >= len(tree):
                return False
        elif not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True

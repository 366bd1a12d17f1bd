"""The hashed lists of what the images install, and what an extra needs by the installed metadata."""

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGES = Path("infra/images")


def pinned(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by canonical name."""
    text = (IMAGES / f"{lock}.lock").read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        matched = re.fullmatch(r"(\S+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+) *", line)
        assert matched, f"not a pinned, hashed requirement: {line[:80]}"
        found[canonicalize_name(matched[1])] = (matched[2], re.findall(r"sha256:[0-9a-f]{64}", matched[3]))
    return found


def closure(project: str, *extras: str) -> set[str]:
    """Canonical names of everything that `project[extras]` needs on this machine, itself left out."""
    seen: set[tuple[str, str]] = set()
    todo = [(canonicalize_name(project), extra) for extra in ("", *extras)]
    while todo:
        asked = todo.pop()
        if asked in seen:
            continue
        seen.add(asked)
        for text in requires(asked[0]) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": asked[1]}):
                todo += [(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)]
    return {name for name, _ in seen} - {canonicalize_name(project)}


def written(lock: str, names: set[str], into: Path) -> Path:
    """A list of these alone, as pip reads it."""
    lines = [
        f"{name}=={version} {' '.join(f'--hash={one}' for one in hashes)}"
        for name, (version, hashes) in pinned(lock).items()
        if name in names
    ]
    into.write_text("\n".join(lines) + "\n")
    return into

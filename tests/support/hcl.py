"""Reads a few plain things out of our Terraform files, without Terraform: lists of strings, attributes, quoted names.

Not a parser: it looks for what `terraform fmt` writes, and fails where it finds nothing.
"""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "infra" / "terraform"


def text(path: str) -> str:
    """A file below infra/terraform."""
    return (FOLDER / path).read_text()


def strings(path: str, name: str) -> list[str]:
    """The strings of `name = [...]`, whatever is done to them afterwards."""
    found = re.search(rf"^\s*{name}\s*=\s*\[([^\]]*)\]", text(path), re.MULTILINE)
    assert found, f"{path} has no list {name}"
    return re.findall(r'"([^"\n]+)"', re.sub(r"#.*", "", found[1]))


def attribute(path: str, name: str) -> str:
    """The first `name = value`, without quotes and comments."""
    found = re.search(rf"^\s*{name}\s*=\s*(.+?)\s*(?:#.*)?$", text(path), re.MULTILINE)
    assert found, f"{path} has no {name}"
    return found[1].strip('"')


def statement(path: str, sid: str) -> list[str]:
    """What the statement with this sid is about: its resources and what is made of them."""
    found = re.search(rf'sid\s*=\s*"{sid}".*?\n  \}}\n', text(path), re.DOTALL)
    assert found, f"{path} has no statement {sid}"
    return re.findall(r'"([^"\n]+)"', re.sub(r"#.*", "", found[0].split("resources", 1)[1]))

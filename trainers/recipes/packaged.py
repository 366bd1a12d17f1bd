"""Files out of installed distributions, which are read and never imported: their own code and dependencies are of no use here.

The versions and their digests are pinned in `requirements.txt` and `requirements-more.txt` beside this file.
"""

import importlib.metadata
from pathlib import Path

from trainers.errors import DataError

INSTALL = "make examples"


def path(package: str, file: str) -> Path:
    """Where `file`, a path inside the distribution `package`, is installed. Raises `DataError` saying how to get it."""
    try:
        found = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"the package '{package}', which has the data, is not installed; {INSTALL}") from error
    if not found.is_file():
        raise DataError(f"the installed '{package}' has no file '{file}'; {INSTALL} installs the version that has it")
    return found


def read(package: str, file: str) -> bytes:
    """The bytes of `file`. Raises `DataError` as `path` does."""
    return path(package, file).read_bytes()

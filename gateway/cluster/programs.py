"""Where the programs lie that are not ours: Envoy and SeaweedFS, both installed by `pip install 'steelyard[cluster]'`."""

import os
import shutil
import sysconfig
from collections.abc import Sequence
from typing import Literal

from gateway.errors import SettingsError

Program = Literal["envoy", "weed"]
_CALLED: dict[Program, str] = {"envoy": "Envoy", "weed": "SeaweedFS"}


def find(program: Program, *, folders: Sequence[str] | None = None) -> str:
    """The path of an executable: beside our Python's own scripts, else on PATH. Raises `SettingsError` saying how to get it."""
    if folders is None:
        folders = [sysconfig.get_path("scripts"), *os.get_exec_path()]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        raise SettingsError(
            f"{_CALLED[program]} (the program '{program}') is not installed; pip install 'steelyard[cluster]' brings it"
        )
    return found

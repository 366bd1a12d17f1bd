"""The name that goes into records of who decided."""

import os
import subprocess
import sys

import pytest


def test_a_user_without_a_name_is_a_number() -> None:
    if os.getuid():
        pytest.skip("only root can become one")
    code = "import os; from gateway.whoami import user_name; os.setuid(54321); print(user_name())"
    environ = {
        name: value for name, value in os.environ.items() if name not in {"LOGNAME", "USER", "LNAME", "USERNAME"}
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == "uid 54321\n"

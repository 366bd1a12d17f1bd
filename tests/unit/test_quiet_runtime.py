"""onnxruntime keeps to itself: no telemetry thread, no word on stdout or stderr, whichever half of the product imports it."""

import os
import subprocess
import sys

import pytest

COUNT = """
import os
{first}
import numpy
before = len(os.listdir('/proc/self/task'))
import onnxruntime
print(len(os.listdir('/proc/self/task')) - before)
"""


def threads_started_by_onnxruntime(first: str, **environment: str) -> int:
    """`CI` and `ORT_RUNNING_UNIT_TESTS` would silence it too, so they are taken away."""
    silencers = {"CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY"}
    env = {name: value for name, value in os.environ.items() if name not in silencers} | environment
    code = COUNT.format(first=first)
    outcome = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return int(outcome.stdout)


@pytest.mark.parametrize("package", ["gateway.errors", "trainers.errors"])
def test_telemetry_is_off_before_onnxruntime_is_imported(package: str) -> None:
    assert threads_started_by_onnxruntime(f"import {package}") == 0


def test_an_operator_may_turn_it_on(tmp_path) -> None:
    """Also the proof that the count above can be anything but zero. Its database goes to a home of its own; nothing is uploaded."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    assert threads_started_by_onnxruntime("import gateway.errors", ORT_DISABLE_TELEMETRY="0", **home) > 0

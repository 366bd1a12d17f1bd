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


def threads_started_by_onnxruntime(first: str) -> int:
    """`CI` and `ORT_RUNNING_UNIT_TESTS` would silence it too, so they are taken away."""
    silencers = {"CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY"}
    env = {name: value for name, value in os.environ.items() if name not in silencers}
    code = COUNT.format(first=first)
    outcome = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return int(outcome.stdout)


@pytest.mark.parametrize("package", ["gateway.errors", "trainers.errors"])
def test_telemetry_is_off_before_onnxruntime_is_imported(package: str) -> None:
    assert threads_started_by_onnxruntime(f"import {package}") == 0

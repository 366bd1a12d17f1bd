"""Importing and using the quantizers leaves the root logger as it was: onnxruntime's configures it when it is imported."""

import subprocess
import sys

CODE = """
import logging
import trainers.cli.train, trainers.quantize.candidates
from trainers.quantize import nbits
nbits._quantizer()
root = logging.getLogger()
print(len(root.handlers), root.level == logging.WARNING)
"""


def test_the_root_logger_is_nobodys_to_configure():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["0", "True"], done.stderr[-500:]

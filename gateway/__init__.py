"""Steelyard's gateway. When its first line ran is kept for the cold start record; onnxruntime's telemetry is turned off."""

import os
from time import monotonic_ns

ENTERED_NS = monotonic_ns()

# onnxruntime's Linux wheels report usage to their maker unless this is set before its first import (its Privacy.md); a thread and a
# database in the home directory come with it. An operator who wants that may set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

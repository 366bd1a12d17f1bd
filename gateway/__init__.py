"""Steelyard's gateway. The moment its first line ran is kept for the cold start record; nothing else happens here."""

from time import monotonic_ns

ENTERED_NS = monotonic_ns()

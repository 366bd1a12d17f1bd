"""Silence around onnxruntime's quantizers: they log through the root logger and warn about rows they divide by zero themselves."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """They recommend a pre-processing that fails on string inputs; whatever goes wrong they raise."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

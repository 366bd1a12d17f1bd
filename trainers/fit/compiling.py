"""Whether to compile a module for the rest of a training: measured, not believed. Only on a GPU, which launches kernels one by one.

Compiling takes a minute or two and pays when what is left to train is long enough; afterwards steps are timed again, and a compiled
module that is not faster, or that cannot be compiled here, is given up. Called by the training loop.
"""

import logging
import time
from collections.abc import Callable

import torch

MEASURED_STEPS = 30
WARM_UP_STEPS = 5
"""The first steps of either kind allocate and tune."""

REMAINING_S_MIN = 300.0
"""torch.compile takes 30 to 90 s for models of this size; below five minutes of training there is too little to win it back."""

FASTER_MIN = 1.05

Forward = Callable[..., torch.Tensor]

log = logging.getLogger(__name__)


class Compiling:
    """Holds the callable to train with. `steps` is how many are to come."""

    def __init__(
        self,
        module: torch.nn.Module,
        steps: int,
        *,
        is_allowed: bool,
        build: Callable[[torch.nn.Module], Forward] = torch.compile,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """`wait` returns when the device has done what it was given, so that times are those of the device."""
        self.forward: Forward = module
        self._module = module
        self._left = steps
        self._build = build
        self._clock = clock
        self._wait = wait
        self._is_open = is_allowed
        self._done = 0
        self._began_s = 0.0
        self._plain_s: float | None = None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's outputs. It is compiled at its first call, which needs a C compiler, and operations that can be."""
        outputs: torch.Tensor
        try:
            outputs = self.forward(*inputs)
        except Exception as error:  # of a compiler, whatever it raises; an error of the module's own comes again below
            if self.forward is self._module:
                raise
            reason = str(error).strip().partition("\n")[0]
            log.warning("torch.compile fails here, so training goes on without it: %s", reason)
            self.forward, self._is_open = self._module, False
            outputs = self.forward(*inputs)
        return outputs

    def after_step(self) -> None:
        """Count a step; now and then change what `forward` is."""
        self._left -= 1
        if not self._is_open:
            return
        self._done += 1
        if self._done == WARM_UP_STEPS:
            self._wait()
            self._began_s = self._clock()
        if self._done == WARM_UP_STEPS + MEASURED_STEPS:
            self._wait()
            self._decide((self._clock() - self._began_s) / MEASURED_STEPS)
            self._done = 0

    def _decide(self, step_s: float) -> None:
        if self._plain_s is None:
            self._plain_s = step_s
            if step_s * self._left >= REMAINING_S_MIN:
                self.forward = self._build(self._module)
            else:
                self._is_open = False
            return
        self._is_open = False
        if step_s * FASTER_MIN > self._plain_s:
            self.forward = self._module

"""Whether a save fits between the platform's request to stop and its kill. Pure; called when the first save has been measured."""

from trainers.errors import SpecError

MARGIN = 2.0
"""The save under way must end before the last one begins, so there may be two of them."""


def require_grace(save_s: float, grace_s: float) -> None:
    """Raises `SpecError` when a save, measured at `save_s` seconds, does not fit into a stop grace of `grace_s` with a margin.

    Containers have 30 s unless told otherwise (Amazon ECS and Kubernetes alike), on ECS at most 120 s.
    """
    needed_s = MARGIN * save_s
    if needed_s > grace_s:
        raise SpecError(
            f"a checkpoint takes {save_s:.1f} s to save, and with a margin {needed_s:.1f} s, but the platform kills "
            f"{grace_s:.1f} s after it asks to stop; give the job a longer stop grace, or a store that is nearer"
        )

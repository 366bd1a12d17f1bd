"""What every launcher is asked and answers, whatever machines it uses: an order in, what was started out.

Three implementations: `local.Local`, `aws_batch.AwsBatch` and `kubernetes.Kubernetes`.
"""

from typing import Protocol

import msgspec

from trainers.launch.environment import Launcher as Name
from trainers.spec.jobspec import JobSpec


class Order(msgspec.Struct, frozen=True):
    """One run to be started now."""

    spec: JobSpec
    run_id: str
    store: str


class Started(msgspec.Struct, frozen=True):
    """What became of an order.

    `job` is the launcher's own name for it. `exit_code` is None while it runs elsewhere. `manifest` is what the user has to apply,
    where nothing was submitted. `notes` say what of the spec this launcher cannot do.
    """

    run_id: str
    job: str = ""
    is_submitted: bool = True
    exit_code: int | None = None
    manifest: str = ""
    notes: tuple[str, ...] = ()


class Launcher(Protocol):
    @property
    def name(self) -> Name: ...

    def start(self, order: Order) -> Started:
        """Raises `SpecError` before anything is started when it cannot be run there, `LauncherUnavailable` when it may later."""
        ...

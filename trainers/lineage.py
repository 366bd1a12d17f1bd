"""Where an artifact came from: code, environment, parameters.

Reads the working folder's git state and the installed versions; nothing here names a user, a host or a path.
"""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import msgspec

from gateway.contract.checkpoint import BitExact
from gateway.contract.manifest import DataSource, Lineage
from trainers.job import TrainJob

PACKAGES = ("steelyard", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "scikit-learn")
GIT_SECONDS_MAX = 10


class Origin(msgspec.Struct, frozen=True):
    """What the run knows of how its model came to be."""

    run_id: str
    recipe: str
    device: str
    spec_sha256: str
    attempts: int
    resumed_at: tuple[int, ...]
    bit_exact: BitExact
    evaluation_sha256: str
    parent: int
    image: str = ""


def lineage(job: TrainJob, sources: tuple[DataSource, ...], origin: Origin) -> Lineage:
    return Lineage(
        run_id=origin.run_id,
        recipe=origin.recipe,
        seed=job.fit.seed,
        data=sources,
        code=_code(),
        environment=environment() | {"device": origin.device},
        parameters=parameters(job),
        spec_sha256=origin.spec_sha256,
        attempts=origin.attempts,
        resumed_at=origin.resumed_at,
        bit_exact=origin.bit_exact,
        evaluation_sha256=origin.evaluation_sha256,
        parent=origin.parent,
        image=origin.image or msgspec.UNSET,
    )


def parameters(job: TrainJob) -> dict[str, str | float | bool]:
    """The recipe's own, and how it was fitted. The seed has a field of its own."""
    fit = job.fit
    return dict(job.parameters) | {
        "epochs": fit.epochs,
        "batch_rows": fit.batch_rows,
        "learning_rate": fit.learning_rate,
        "weight_decay": fit.weight_decay,
        "patience": fit.patience,
    }


def _code() -> dict[str, str]:
    """The commit of the folder the command runs in, which is where a recipe of one's own lives; empty without git."""
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    if commit is None or status is None:
        return {}
    return {"commit": commit, "dirty": "true" if status else "false"}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # the arguments are ours
            ["git", *arguments],  # noqa: S607  # whichever git the user has
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python, the machine, and which versions of these packages are installed."""
    return {"python": platform.python_version(), "machine": platform.machine()} | {
        name: found for name in packages if (found := _version(name))
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

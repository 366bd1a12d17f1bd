"""Whether a checkpoint may be resumed here: same spec, same data, same kind of host. Pure; called by the store of checkpoints."""

from collections.abc import Mapping

from gateway.contract.checkpoint import BitExact, CheckpointManifest, Origin
from trainers.errors import HostDiffers, SpecError


def check(manifest: CheckpointManifest, origin: Origin, *, is_strict: bool) -> BitExact:
    """What may be claimed about the weights of a run that goes on from this checkpoint.

    Raises `SpecError` for another spec or other data, `HostDiffers` for another kind of host when `is_strict`.
    """
    made = manifest.origin
    at = f"run '{manifest.run_id}': the checkpoint of step {manifest.step} was made"
    if made.spec_sha256 != origin.spec_sha256:
        raise SpecError(
            f"{at} from the spec {made.spec_sha256}, this is the spec {origin.spec_sha256}; "
            "go back to that spec, or choose another run id"
        )
    if changed := _differences(made.data_sha256, origin.data_sha256):
        raise SpecError(f"{at} from other data: {changed}; go back to that data, or choose another run id")
    changed = _differences(made.fingerprint, origin.fingerprint)
    if changed and is_strict:
        raise HostDiffers(
            f"{at} on another kind of host: {changed}; resume on a host of that kind, or turn strict resume off "
            "(`strict_resume`), which gives good but other weights and records bit_exact: best_effort"
        )
    return "best_effort" if changed else manifest.bit_exact


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`threads was 2, is 1`; in the order of the names."""
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    return ", ".join(f"{name} was {then.get(name, 'absent')}, is {now.get(name, 'absent')}" for name in names)

"""What each variant of an artifact loses or gains in quality against the reference, as its manifest recorded it. Pure; nothing is
judged again here.
"""

import msgspec

from gateway.contract.manifest import Evaluation, Manifest


class Judged(msgspec.Struct, frozen=True):
    """One variant on one split. `deltas`: its metrics less those of `against` on the same split; `failed`: gates not passed."""

    variant: str
    against: str
    split: str
    rows: int
    deltas: dict[str, float]
    failed: tuple[str, ...]


def judged(manifest: Manifest) -> tuple[Judged, ...]:
    """Of every variant that was evaluated beside the reference: `fp32` where that is recorded, else what is served."""
    of_subject = {(one.subject, one.split): one for one in manifest.evaluations}
    ids = [variant.id for variant in manifest.variants]
    reference = "fp32" if any(one.subject == "fp32" for one in manifest.evaluations) else manifest.serve
    return tuple(
        _judged(one, of_subject[reference, one.split], manifest)
        for one in manifest.evaluations
        if one.subject in ids and one.subject != reference and (reference, one.split) in of_subject
    )


def _judged(one: Evaluation, reference: Evaluation, manifest: Manifest) -> Judged:
    return Judged(
        variant=one.subject,
        against=reference.subject,
        split=one.split,
        rows=one.rows,
        deltas={
            name: value - reference.metrics[name] for name, value in one.metrics.items() if name in reference.metrics
        },
        failed=tuple(gate.name for gate in manifest.gates if gate.variant == one.subject and not gate.passed),
    )


def sentence(found: tuple[Judged, ...], served: str) -> str:
    """`int8 against fp32 on test (100 rows): roc_auc -0.0031, failed gate drift`, one after the other."""
    return "; ".join(_words(one, served) for one in found)


def _words(one: Judged, served: str) -> str:
    deltas = ", ".join(f"{name} {delta:+z.4f}" for name, delta in one.deltas.items()) or "no metric in common"
    gates = f"; failed {', '.join(one.failed)}" if one.failed else ""
    name = f"{one.variant} (measured here)" if one.variant == served else one.variant
    return f"{name} against {one.against} on {one.split} ({one.rows:,} rows): {deltas}{gates}"

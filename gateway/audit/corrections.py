"""The posted corrections against each other: numbers, chain, balance. `gateway.contract.corrections` says what they are.

Pure. A correction is not compared with the segments of its hours: those may have come late, and then `costs reconcile` shows it.
"""

from collections.abc import Mapping

from gateway.audit.findings import Finding, Kind
from gateway.contract import codec, layout
from gateway.contract.corrections import Posted, problems
from gateway.errors import ManifestInvalid, WrittenByNewer


def check(objects: Mapping[str, bytes]) -> tuple[list[Finding], int]:
    """What is wrong, and the sum of all that could be read. `objects` are all of them, stored bytes by key."""
    found: list[Finding] = []
    previous, last, total = "", 0, 0
    for key, data in sorted(objects.items()):
        posted = _decoded(key, data, found)
        if posted is None:
            previous, last = codec.sha256(data), last + 1
            continue
        if layout.corrections(posted.generation) != key:
            found.append(
                _finding("misplaced", key, f"{key} holds what belongs to {layout.corrections(posted.generation)}")
            )
        if posted.generation != last + 1:
            found.append(
                _finding(
                    "gap", key, f"corrections {last + 1} to {posted.generation - 1} are missing: each changed a bill"
                )
            )
        elif posted.previous_sha256 != previous:
            found.append(_finding("broken_chain", key, f"{key} does not carry the digest of the posting before it"))
        found += [_finding("unbalanced", key, f"{key}: {problem}") for problem in problems(posted)]
        previous, last, total = codec.sha256(data), posted.generation, total + posted.cost_picousd
    return found, total


def _finding(kind: Kind, key: str, message: str) -> Finding:
    return Finding(kind, message, key=key)


def _decoded(key: str, data: bytes, found: list[Finding]) -> Posted | None:
    try:
        posted = codec.decode(data, Posted, what=key)
    except WrittenByNewer as error:
        found.append(_finding("newer_version", key, str(error)))
        return None
    except ManifestInvalid as error:
        found.append(_finding("damaged", key, str(error)))
        return None
    if codec.encode(posted) != data:
        found.append(_finding("damaged", key, f"{key} was changed: these are not the bytes that Steelyard writes"))
    return posted

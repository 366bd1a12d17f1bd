"""The small vocabularies that several stored objects share: names, digests, datatypes, lengths of time, and what fits them."""

from typing import Annotated, Any, Literal  # Any: an annotated type is no class

import msgspec
from msgspec import Meta

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
END_NS = 2**63 - 1
"""Later than any moment: the largest that 64 bits hold."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$(?!\n)")]
"""A model or alias name: lower case, so that two names never collide on a case-folding file system."""

NAME_RULE = "lower case letters, digits, '.', '_' or '-', at most 63, the first no sign"

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
KeyId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]
"""Names a public key: the first 64 bits of the sha256 of its DER form (SubjectPublicKeyInfo)."""

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)")]
"""A file inside an artifact: flat, no folders, so nothing can escape the folder it is unpacked to."""

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]

Market = Literal["spot", "on_demand", "unknown"]
"""How a training machine was bought."""

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
"""Tensor element types as the Open Inference Protocol names them."""


def fits(text: str, word: Any) -> bool:
    """Whether this text is one of these words."""
    try:
        msgspec.convert(text, word)
    except msgspec.ValidationError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether this can be a model's or an alias's name at all; anything else never reaches a key."""
    return fits(text, Name)

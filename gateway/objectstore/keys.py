"""Which keys every store can hold. Not the layout: `gateway.contract.layout` says which keys mean something.

A store checks a key before it touches a disk or a network. A refusal is a ValueError, because only a bug in our own code
can ask for such a key: names that people choose are checked where they come in. What lies in a store under such a name was put
there by something else: listings leave it out, for no other call could take it.
"""

KEY_BYTES_MAX = 1024  # Amazon S3's limit
SEGMENT_BYTES_MAX = 255  # what Linux file systems allow a file name


def checked(key: str) -> str:
    """The key itself, or ValueError when some store could not hold it, or would find it outside its root."""
    segments = key.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise ValueError(f"key {key!r} has an empty, '.' or '..' segment")
    if "\\" in key or "\0" in key:
        raise ValueError(f"key {key!r} contains a backslash or NUL")
    if len(key.encode()) > KEY_BYTES_MAX or any(len(segment.encode()) > SEGMENT_BYTES_MAX for segment in segments):
        raise ValueError(
            f"key {key[:100]!r}... is longer than {KEY_BYTES_MAX} bytes, or a segment than {SEGMENT_BYTES_MAX}"
        )
    return key


def is_key(name: str) -> bool:
    """Whether every store can hold it."""
    try:
        checked(name)
    except ValueError:  # also what is not UTF-8, as file names may be
        return False
    return True

"""The key as its holder sees it: `sy_<id>_<secret><checksum>`. Nothing here touches a store, and no error quotes a key.

`sy_` lets secret scanners find one (`sy_[a-km-np-z2-9]{10}_[0-9A-Za-z]{36}`), the id may be shown and logged, the secret is 178
random bits, and the checksum tells a mistyped key from an unknown one before anything is looked up.

What is stored is the SHA-256 of the whole key. A slow hash (bcrypt, scrypt, argon2) defends passwords, which can be guessed: a
guess at 178 bits succeeds with probability 2^-178 however fast the hash, and a slow one would cost every request milliseconds.
"""

import hashlib
import secrets
import zlib

from gateway.contract.access import KEY_ID_LENGTH, KEY_ID_LETTERS

PREFIX = "sy_"
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH = 30  # log2(62) * 30 = 178 bits
CHECKSUM_LENGTH = 6  # 62^6 > 2^32
LENGTH = len(PREFIX) + KEY_ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH


def new() -> tuple[str, str]:
    """A fresh id and the key that carries it."""
    key_id = _random(KEY_ID_LETTERS, KEY_ID_LENGTH)
    unchecked = f"{PREFIX}{key_id}_{_random(LETTERS, SECRET_LENGTH)}"
    return key_id, unchecked + _checksum(unchecked)


def digest(token: bytes) -> bytes:
    """What a gateway looks a key up by, 32 bytes; in hex it is the record's `secret_sha256`."""
    return hashlib.sha256(token).digest()


def key_id(token: str) -> str | None:
    """The id inside a key, or None when this is no whole key: wrong shape, or a checksum that does not match."""
    unchecked, checksum = token[:-CHECKSUM_LENGTH], token[-CHECKSUM_LENGTH:]
    id_from = len(PREFIX)
    id_to = id_from + KEY_ID_LENGTH
    is_whole = (
        len(token) == LENGTH
        and token.isascii()
        and token.startswith(PREFIX)
        and token[id_to] == "_"
        and _checksum(unchecked) == checksum
    )
    return token[id_from:id_to] if is_whole and is_id(token[id_from:id_to]) else None


def is_id(text: str) -> bool:
    """Whether this can be a key's id at all; anything else never reaches a store."""
    return len(text) == KEY_ID_LENGTH and set(text) <= set(KEY_ID_LETTERS)


def _random(letters: str, length: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(length))


def _checksum(text: str) -> str:
    """CRC-32 in base 62."""
    number, digits = zlib.crc32(text.encode()), []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(LETTERS))
        digits.append(LETTERS[digit])
    return "".join(reversed(digits))

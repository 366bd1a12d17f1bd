"""The one table from errors to HTTP, and the body every failure has: `{"error": "a sentence"}` (protocol rule 2)."""

import math

from gateway import errors
from gateway.http import jsonbody
from gateway.telemetry.reasons import reason_of

Headers = list[tuple[bytes, bytes]]

NOT_ADMITTED = b"steelyard-not-admitted"
"""On what was refused because of this container's own load: another one may take it at once. A proxy may send it there; what a
caller's limits, rights or input refuse carries no such header."""

STATUS: dict[type[errors.GatewayError], int] = {
    errors.RequestError: 400,
    errors.InvalidInput: 400,
    errors.ModelNotFound: 404,
    errors.PayloadTooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.BudgetExceeded: 429,
    errors.Unavailable: 503,
    errors.Overloaded: 429,
    errors.ModelNotReady: 503,
    errors.DeadlineExceeded: 503,
    errors.WouldBeLate: 503,
    errors.CacheUnusable: 503,
    errors.StoreUnavailable: 503,
    errors.BucketNotFound: 503,
    errors.StoreRefused: 503,
    errors.StoreReadOnly: 503,
    errors.StoreFull: 503,
    errors.ObjectError: 500,
    errors.ObjectNotFound: 500,
    errors.PreconditionFailed: 500,
    errors.ReleaseConflict: 500,
    errors.ArtifactError: 503,
    errors.ManifestInvalid: 503,
    errors.WrittenByNewer: 503,
    errors.DigestMismatch: 503,
    errors.SignatureInvalid: 503,
    errors.GoldenMismatch: 503,
    errors.UnsupportedModel: 503,
    errors.SettingsError: 500,
    errors.GatewayError: 500,
}


def describe(error: errors.GatewayError) -> tuple[int, bytes, Headers]:
    """Status, JSON body and extra headers. An artifact at fault is 503 without Retry-After: another version may heal it."""
    headers: Headers = []
    if isinstance(error, errors.Unavailable | errors.BudgetExceeded) and error.retry_after_ms is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_ms / 1000)).encode()))
    if isinstance(error, errors.Overloaded | errors.WouldBeLate):
        headers.append((NOT_ADMITTED, reason_of(error).encode()))
    if isinstance(error, errors.Unauthenticated):
        # RFC 9110, 11.6.1: a 401 names a scheme.
        headers.append((b"www-authenticate", b'Bearer realm="steelyard"'))
    return STATUS[type(error)], body(str(error)), headers


def body(sentence: str) -> bytes:
    """The failure body for a sentence."""
    return jsonbody.encode({"error": sentence})

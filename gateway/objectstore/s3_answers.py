"""What an S3 server's refusal means in our own words, and what of a client's error may be said. Knows no client library.

The codes are those of the S3 API reference's list of error responses; a HEAD has no body, so its only code is the status.
"""

from gateway.errors import (
    BucketNotFound,
    GatewayError,
    ObjectNotFound,
    PreconditionFailed,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

# Errors of botocore that quote whatever a provider of credentials answered: half an answer may hold a secret.
_QUOTING = {"CredentialRetrievalError", "MetadataRetrievalError", "TokenRetrievalError"}

# Credentials that S3 refuses with a 400 instead of a 403.
_REFUSED_AS_400 = {"AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken"}


def meaning(status: int, code: str, *, bucket: str, what: str) -> GatewayError:
    """The error for an answer of 300 and above. `what` is the object's URL."""
    if code == "NoSuchBucket":
        return BucketNotFound(f"no bucket {bucket!r}; create it, or correct the store's URL and AWS_ENDPOINT_URL_S3")
    if status == 404 and code != "NoSuchUpload":  # the parts of an upload are no object that a caller asked for
        return ObjectNotFound(f"no object {what}")
    if status == 412:
        return PreconditionFailed(f"{what} exists already, or has changed; read it again")
    if status in {401, 403} or code in _REFUSED_AS_400:
        return StoreRefused(f"{what}: refused ({status} {code}); check the AWS credentials and what they may do")
    if status == 507:
        return StoreFull(f"{what}: the store has no space left")
    return StoreUnavailable(f"{what}: the store answered {status} {code}")


def quotable(error: Exception) -> str:
    """The error in its own words; of one that quotes where credentials come from, its name and that place alone."""
    name = type(error).__name__
    if name not in _QUOTING:
        return str(error)
    return f"{name} of {getattr(error, 'kwargs', {}).get('provider', 'a metadata service')}"

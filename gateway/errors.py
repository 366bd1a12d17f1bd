"""Every error the gateway raises, by whose fault it is. No HTTP in here: `gateway.http.problems` maps each class to a status.

GatewayError
|- RequestError        the caller's fault, do not retry
|  |- InvalidInput       malformed or contradicting the model's signature
|  |- ModelNotFound      no such model or version
|  |- PayloadTooLarge    over a named limit
|  |- Unauthenticated    no key, or an unknown one
|  |- Forbidden          a known key without the right
|  `- BudgetExceeded     the caller's own limit is spent; may carry retry_after_ms
|- Unavailable         ours; carries retry_after_ms
|  |- Overloaded         a queue is full
|  |- ModelNotReady      known, not loaded yet
|  |- DeadlineExceeded   the answer would come too late
|  |  `- WouldBeLate        foreseen on arrival; nothing was begun
|  |- CacheUnusable      the local folder for downloads cannot be used
|  `- StoreUnavailable   the object store cannot be used
|     |- BucketNotFound    it answers, but has no such bucket or root folder
|     |- StoreRefused      it answers, and refuses these credentials
|     |- StoreReadOnly     reads work, writes do not
|     `- StoreFull         no space left
|- ObjectError         what a caller of the object store must handle
|  |- ObjectNotFound       no such key
|  |- PreconditionFailed   a conditional write lost: the object exists, or has changed
|  `- ReleaseConflict      another decision about the same alias was recorded first
|- ArtifactError       the publisher's fault; refuse to load
|  |- ManifestInvalid    not a manifest, or one from a newer version
|  |  `- WrittenByNewer    whole, and only a newer Steelyard can read it
|  |- DigestMismatch     bytes differ from their sha256
|  |- SignatureInvalid   unsigned or altered
|  |- GoldenMismatch     computes other outputs here than where it was published
|  `- UnsupportedModel   valid, but this gateway cannot run it
`- SettingsError       the operator's fault; exit 2 before listening

A message says what to do: `model 'digits' has no version 7; published: 5, 6`. It never carries a payload or a secret.
Cancellation is never caught into one of these.
"""


class GatewayError(Exception):
    """The root: catch this at a door, never inside."""


class RequestError(GatewayError):
    """The caller's fault: the same request will fail again."""


class InvalidInput(RequestError):
    """The request is malformed or contradicts the model's signature; the message names the field."""


class ModelNotFound(RequestError):
    """No such model or version; the message names what is published."""


class PayloadTooLarge(RequestError):
    """A size limit was passed; the message names the limit."""


class Unauthenticated(RequestError):
    """No key was given, or an unknown one."""


class Forbidden(RequestError):
    """The key is known and lacks the right."""


class BudgetExceeded(RequestError):
    """The caller's own rate, concurrency or money limit is spent, for `retry_after_ms` milliseconds where that is known."""

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Unavailable(GatewayError):
    """Ours: the same request may succeed after `retry_after_ms` milliseconds."""

    def __init__(self, message: str, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Overloaded(Unavailable):
    """A queue is full; refused before any work was done."""


class ModelNotReady(Unavailable):
    """The model is published, and not loaded in this container yet."""


class DeadlineExceeded(Unavailable):
    """The answer would come, or came, after the caller's deadline."""


class WouldBeLate(DeadlineExceeded):
    """Foreseen on arrival, for what waits here already: nothing was begun, and another gateway may be in time."""


class CacheUnusable(Unavailable):
    """The local folder for downloaded files is full, read-only or not ours."""


class StoreUnavailable(Unavailable):
    """The object store cannot be reached or answers with its own failure."""


class BucketNotFound(StoreUnavailable):
    """The store answers, and the bucket or root folder does not exist."""


class StoreRefused(StoreUnavailable):
    """The store answers, and refuses these credentials."""


class StoreReadOnly(StoreUnavailable):
    """Reads work and writes do not."""


class StoreFull(StoreUnavailable):
    """No space is left for writes."""


class ObjectError(GatewayError):
    """What the caller of an object store must handle."""


class ObjectNotFound(ObjectError):
    """No object has this key."""


class PreconditionFailed(ObjectError):
    """A conditional write lost: the object exists already, or has changed since it was read."""


class ReleaseConflict(ObjectError):
    """Somebody decided about the same alias meanwhile, knowing more than our caller did: look again, then decide again."""


class ArtifactError(GatewayError):
    """The publisher's fault: the artifact is refused and the old version stays."""


class ManifestInvalid(ArtifactError):
    """Not a manifest, contradicts itself, or comes from a newer version of Steelyard."""


class WrittenByNewer(ManifestInvalid):
    """A record with a higher schema_version: nothing is wrong with it, this Steelyard is too old."""


class DigestMismatch(ArtifactError):
    """Stored bytes do not have the digest the manifest promises."""


class SignatureInvalid(ArtifactError):
    """The artifact is unsigned, or altered after signing."""


class GoldenMismatch(ArtifactError):
    """On this host the graph does not give the outputs that its publisher recorded, within the recorded tolerance."""


class UnsupportedModel(ArtifactError):
    """The artifact is sound, and this gateway cannot run it."""


class SettingsError(GatewayError):
    """The operator's fault: the process exits with 2 before it listens."""

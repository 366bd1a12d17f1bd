"""Why a request was answered with an error: one word per kind of error, so that a label stays bounded and a log line short."""

from gateway import errors

INTERNAL = "internal"
_REASONS: dict[type[errors.GatewayError], str] = {
    errors.RequestError: "invalid",
    errors.ModelNotFound: "not_found",
    errors.PayloadTooLarge: "too_large",
    errors.Unauthenticated: "unauthenticated",
    errors.Forbidden: "forbidden",
    errors.BudgetExceeded: "budget",
    errors.Overloaded: "overloaded",
    errors.ModelNotReady: "not_ready",
    errors.DeadlineExceeded: "deadline",
    errors.CacheUnusable: "cache",
    errors.StoreUnavailable: "store",
    errors.ArtifactError: "artifact",
}
REASONS: tuple[str, ...] = (*_REASONS.values(), INTERNAL)


def reason_of(error: BaseException) -> str:
    """The word for this error or for the nearest class above it; what is not ours to name is `internal`."""
    return next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), INTERNAL)

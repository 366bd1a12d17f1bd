"""Which right a route needs. Prediction routes are checked by `Caller.check`, with their model; all others go by this table.

    predict   everything that a client of models calls: server metadata, model metadata and readiness, the repository's index
    costs     cost reports
    admin     what changes this container (loading, unloading, log and trace settings) or shows it as a whole (/v1/loaded)

Open: health, for balancers and kubelets hold no keys; the documentation, which is the same everywhere; `/metrics` unless
`access.metrics_open` is false, for scrapers are usually let in by the network, and then it needs `costs`: it shows the models'
costs. What the table does not know needs `predict`, and `admin` to be changed.
"""

from gateway.contract.access import Right

_OPEN = frozenset({"/", "/ping", "/v2/health/live", "/v2/health/ready", "/docs"})


def needed(method: str, path: str, *, metrics_open: bool) -> Right | None:
    """The right for this request, or None when the route is open. `path` is decoded, as ASGI gives it."""
    parts = path.rstrip("/").split("/")
    match parts[1:]:
        case _ if path in _OPEN:
            return None
        case ["docs", *_]:
            return None
        case ["metrics"]:
            return None if metrics_open else "costs"
        case ["v1", "costs", *_]:
            return "costs"
        case ["v1", "loaded"]:
            return "admin"
        case ["v2", "repository", "index"]:
            return "predict"  # a POST that changes nothing
    return "predict" if method in {"GET", "HEAD", "OPTIONS"} else "admin"

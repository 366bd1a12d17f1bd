"""Which right a route needs. Prediction routes are checked by `Caller.check`, with their model; all others go by this table.

    predict   everything that a client of models calls: server metadata, model metadata and readiness, the repository's index
    costs     cost reports
    admin     what changes this container (loading, unloading, log and trace settings) or shows it as a whole (/v1/loaded)

Open: health, for balancers and kubelets hold no keys; the documentation, which is the same everywhere; `/metrics` unless
`access.metrics_open` is false, for scrapers are usually let in by the network, and then it needs `costs`: it shows the models'
costs. What the table does not know needs `predict`, and `admin` to be changed.
"""

from gateway.contract.access import Right

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_TREES: dict[tuple[str, ...], Right | None] = {
    ("ping",): None,
    ("docs",): None,
    ("v2", "health"): None,
    ("metrics",): None,
    ("costs",): "costs",
    ("v1", "costs"): "costs",
    ("v1", "loaded"): "admin",
    ("v2", "repository", "index"): "predict",  # a POST that changes nothing
}


def needed(method: str, path: str, *, metrics_open: bool) -> Right | None:
    """The right for this request, or None when the route is open. `path` is decoded, as ASGI gives it."""
    parts = tuple(part for part in path.split("/") if part)  # `//v1/loaded/` is /v1/loaded, whoever routes it
    if not parts:
        return None
    if parts[0] == "metrics" and not metrics_open:
        return "costs"
    for tree, right in _TREES.items():
        if parts[: len(tree)] == tree:
            return right
    return "predict" if method in _READS else "admin"

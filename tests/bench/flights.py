"""The `flights` recipe's network in a store within half a minute, and a row that a client would send: a user's model for benches.

Trained on every hundredth flight only: how well it answers is of no matter here, its graph and its door are the shipped ones.
"""

import json
import tempfile
from pathlib import Path

import msgspec

from gateway.contract import layout
from gateway.objectstore.protocol import ObjectStore
from tests.support import promotions
from tests.support.models import NOW_NS
from tests.support.monthly import monthly
from trainers import publish
from trainers.export.exporting import export
from trainers.fit.loop import fit

PATH = "/v1/predict/flights"
EVERY = 100


async def published(store: ObjectStore) -> str:
    """The body of a request for one held-out row; the model is its name's champion."""
    job = monthly(3, every=EVERY, epochs=1)
    data = job.load()
    fitted = fit(
        msgspec.structs.replace(job, fit=msgspec.structs.replace(job.fit, batch_rows=256)), data, _unheard, "cpu"
    )
    graph = export(fitted.module, data, job.objective, job.lengths)
    with tempfile.TemporaryDirectory() as folder:
        promotions.artifact(Path(folder), data, graph, run_id="bench", rows_max=0, model=job.model)
        record = await publish.publish(store, Path(folder), run_id="bench", now_ns=NOW_NS)
    await publish.promote(
        store,
        model=job.model,
        alias=layout.CHAMPION,
        version=record.version,
        actor="tests",
        reason="built for a bench",
        now_ns=NOW_NS,
    )
    assert data.examples is not None
    return json.dumps({"rows": [data.examples.rows[0]]})


def _unheard(*_: object) -> None:
    """Nobody watches this training."""

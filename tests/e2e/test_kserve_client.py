"""KServe's `InferenceRESTClient` against a gateway. The client runs in `.venv-kserve`, which `make e2e` creates.

Another environment that has it can be named in KSERVE_PYTHON.
"""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gateway.objectstore.local import LocalStore
from tests.support import gateways, identities, models

pytestmark = pytest.mark.e2e

SESSION = Path(__file__).with_name("kserve_session.py")
PYTHON = Path(os.environ.get("KSERVE_PYTHON", SESSION.parents[2] / ".venv-kserve/bin/python"))


async def _publish(root: Path) -> None:
    store = LocalStore(root)
    await models.publish_mlp(store)
    await identities.publish(store, "text", identities.TEXT_SIGNATURE)
    await identities.publish(store, "half", identities.signature({"x": ("FP16", (2,))}))


def test_kserves_client_is_served(tmp_path: Path) -> None:
    assert PYTHON.exists(), f"{PYTHON} is not there; `make e2e` creates it"
    root = tmp_path / "store"
    root.mkdir()
    asyncio.run(_publish(root))
    with gateways.running(root, tmp_path) as gateway:
        command = [str(PYTHON), str(SESSION), f"http://127.0.0.1:{gateway.port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
        body = {"inputs": [{"name": "features", "shape": [2, 32], "datatype": "FP32", "data": x.ravel().tolist()}]}
        scores = gateway.post("/v2/models/mlp/infer", body).json["outputs"][0]["data"]
    assert [found[name] for name in ("live", "ready", "model ready", "no model ready")] == [True, True, True, False]
    for binary in (False, True):
        np.testing.assert_allclose(np.ravel(found[f"scores, binary {binary}"]), scores, rtol=1e-6)
        assert found[f"named, binary {binary}"] == ["mlp", "mine"]
        assert found[f"text, binary {binary}"] == ["später", "日本"]
    assert found["half"] == [[0.5, -65504.0]]
    assert "model 'mlp' has no input 'nope'; it has: 'features'" in found["refusal"]
    assert (found["v1 live"], found["v1 model ready"]) == (True, True)
    np.testing.assert_allclose(np.ravel(found["v1 predictions"]), scores, rtol=1e-6)
    assert "'instances' must be a list with one item per row" in found["v1 refusal"]

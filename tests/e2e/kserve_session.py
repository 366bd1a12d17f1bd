"""What `test_kserve_client` does with KServe's client, in a virtual environment of its own: its dependencies are older than ours.

kserve_session.py BASE_URL prints one JSON object. Imports nothing of this repository.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
HALF = np.array([[0.5, -65504.0]], np.float16)
WORDS = np.array([["später"], ["日本"]], np.object_)


async def main(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as v2:
        found["live"] = await v2.is_server_live(url)
        found["ready"] = await v2.is_server_ready(url)
        found["model ready"] = await v2.is_model_ready(url, "mlp")
        found["no model ready"] = await v2.is_model_ready(url, "nosuch")
        for binary in (False, True):
            answer = await v2.infer(url, _request("mlp", "features", X, "FP32", binary), model_name="mlp")
            found[f"scores, binary {binary}"] = _output(answer, "scores").as_numpy().tolist()
            found[f"named, binary {binary}"] = [answer.model_name, answer.id]
        answer = await v2.infer(url, _request("half", "x", HALF, "FP16", True), model_name="half")
        found["half"] = _output(answer, "x_out").as_numpy().tolist()
        for binary in (False, True):
            encoded = WORDS if not binary else np.char.encode(WORDS.astype(str), "utf-8").astype(np.object_)
            answer = await v2.infer(url, _request("text", "text", encoded, "BYTES", binary), model_name="text")
            words = _output(answer, "text_out").as_numpy().ravel().tolist()
            found[f"text, binary {binary}"] = [w.decode() if isinstance(w, bytes) else w for w in words]
        found["refusal"] = await _refusal(v2.infer(url, _request("mlp", "nope", X, "FP32", True), model_name="mlp"))
    async with InferenceRESTClient(RESTConfig(protocol="v1", retries=0)) as v1:
        found["v1 live"] = await v1.is_server_live(url)
        found["v1 model ready"] = await v1.is_model_ready(url, "mlp")
        found["v1 predictions"] = (await v1.infer(url, {"instances": X.tolist()}, model_name="mlp"))["predictions"]
        found["v1 refusal"] = await _refusal(v1.infer(url, {"instances": 5}, model_name="mlp"))
    return found


def _request(model: str, name: str, values: Any, datatype: str, binary: bool) -> Any:
    sent = InferInput(name, list(values.shape), datatype)
    sent.set_data_from_numpy(values, binary_data=binary)
    outputs = [RequestedOutput(_output_name(model), {"binary_data": binary})]
    return InferRequest(model, [sent], request_id="mine", request_outputs=outputs)


def _output_name(model: str) -> str:
    return {"mlp": "scores", "half": "x_out", "text": "text_out"}[model]


def _output(answer: Any, name: str) -> InferOutput:
    return next(output for output in answer.outputs if output.name == name)


async def _refusal(call: Any) -> str:
    try:
        await call
    except Exception as error:
        return str(error)
    return "nothing was refused"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))) + "\n")

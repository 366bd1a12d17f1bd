"""The onnxruntime session that every Python server of the benches runs: one thread, no spinning, CPU.

Needs onnxruntime alone, for the peers' environments have no part of this product installed.
"""

import onnxruntime as ort


def session(path: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

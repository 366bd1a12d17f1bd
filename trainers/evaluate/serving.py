"""A session as the gateway makes it: what every figure of a candidate is measured in.

Equal to `gateway.runtime.session`, which no trainer may import; a test compares the two. Only the arena is the session's own here.
"""

from pathlib import Path

import onnxruntime as ort

from gateway.contract.manifest import optimizer


def open_session(
    path: Path, *, optimized_by: str = "", only_rows_vary: bool = True, has_arena: bool = True
) -> ort.InferenceSession:
    """`only_rows_vary`: no dimension of the inputs is open but the rows; the gateway reads that off the signature.

    Without an arena what a run needs goes back when it ends.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.enable_cpu_mem_arena = has_arena
    options.enable_mem_pattern = only_rows_vary
    if optimized_by == optimizer(ort.__version__):
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)

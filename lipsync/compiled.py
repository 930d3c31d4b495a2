"""Networks compiled by OpenVINO for this machine's processor."""

from __future__ import annotations

import threading
from typing import Any

_LOCK = threading.Lock()


def compiled(network: Any, **hints: Any) -> Any:
    """An openvino.CompiledModel, of which each thread makes a request of its own.

    network  an openvino.Model, or the path of a file that OpenVINO reads
    hints    OpenVINO's properties, such as INFERENCE_PRECISION_HINT="f32"
    """
    import openvino as ov

    with _LOCK:
        # OpenVINO 2026.4 fills a table at the first use of Tensor.data in a process and waits for Python's lock while
        # it does; a second thread that comes to it then waits with that lock held, and the whole process stands still.
        _ = ov.Tensor(ov.Type.f32, ov.Shape([1])).data
        return ov.Core().compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hints})

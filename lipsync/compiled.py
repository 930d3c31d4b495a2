"""Networks compiled by OpenVINO for this machine's processor."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

_LOCK = threading.Lock()


def share_cores(among: int) -> None:
    """Let the networks of this process, and of those that it starts, take one of so many shares of the cores: processes
    of which each takes all wait for one another. OMP_NUM_THREADS, where it is set, stands."""
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // among)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if "torch" in sys.modules:  # it read the environment when it was imported
            sys.modules["torch"].set_num_threads(threads)


def compiled(network: Any, **hints: Any) -> Any:
    """An openvino.CompiledModel, of which each thread makes a request of its own.

    network  an openvino.Model, or the path of a file that OpenVINO reads
    hints    OpenVINO's properties, such as INFERENCE_PRECISION_HINT="f32"
    OMP_NUM_THREADS bounds its threads, as it does torch's; OpenVINO by itself does not read it.
    """
    import openvino as ov

    with _LOCK:
        # OpenVINO 2026.4 fills a table at the first use of Tensor.data in a process and waits for Python's lock while
        # it does; a second thread that comes to it then waits with that lock held, and the whole process stands still.
        _ = ov.Tensor(ov.Type.f32, ov.Shape([1])).data
        own: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(threads):
            own |= {"INFERENCE_NUM_THREADS": int(threads), "ENABLE_CPU_PINNING": False}  # two would share a core
        return ov.Core().compile_model(network, "CPU", own | hints)

"""Engines that run a network: torch (the reference, on a processor or a GPU), OpenVINO (bf16 or float32, processor).

`open_engine(spec, "auto")` takes the fastest one that agrees with float32 torch within 40 dB PSNR on a real face, and
remembers the choice for this checkpoint on this machine. An engine takes and gives float32 numpy arrays and knows
nothing of frames or sound. An engine whose library is not installed is absent from `candidates()`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import platform
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .checkpoints import registry
from .checkpoints.registry import Card
from .compiled import compiled
from .errors import EngineError
from .files import cache_dir

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)
BATCH = 16  # faces at once; 8 and 32 are as fast (docs/speed.md), 32 shows a short clip late
STREAMS = 2  # requests side by side, each with its part of a batch and its share of the cores (docs/speed.md)
PART = BATCH // STREAMS
MIN_PSNR_DB = 40.0
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class NetworkSpec:
    """What an engine has to know of a network.

    card     its checkpoint
    inputs   (name, shape of one item), in the order of its arguments; outputs: names of what it returns, in order
    sample   gives BATCH items of its inputs, to compare engines on
    """

    card: Card
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[str, ...]
    sample: Callable[[], Values]


class Engine(ABC):
    """Runs one network. True of every engine: any thread may call `run`; items do not depend on their neighbours."""

    name: str

    @abstractmethod
    def run(self, inputs: Values) -> Values:
        """Arrays (B, ...) float32 by name -> arrays (B, ...) float32 by name, B from 1 up."""


class ModuleEngine(Engine):
    """A torch network as it is, wherever its weights lie; bf16 autocast when asked for."""

    def __init__(self, network: nn.Module, inputs: Sequence[str], outputs: Sequence[str], bf16: bool = False) -> None:
        self._network, self._inputs, self._outputs, self._bf16 = network, tuple(inputs), tuple(outputs), bf16
        self.name = "torch"

    def run(self, inputs: Values) -> Values:
        import torch

        device = next(self._network.parameters()).device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            out = self._network(*(torch.from_numpy(inputs[name]).to(device) for name in self._inputs))
        out = out if isinstance(out, tuple) else (out,)
        return {name: value.float().cpu().numpy() for name, value in zip(self._outputs, out, strict=True)}


class TorchEngine(ModuleEngine):
    """Eager torch on a processor or a GPU."""

    def __init__(self, spec: NetworkSpec, device: str = "cpu", precision: str = "float32") -> None:
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError("torch sees no GPU on this machine: use the engine 'openvino' or 'torch'.")
        network = registry.load(spec.card.name).to(device).eval()
        super().__init__(network, [name for name, _ in spec.inputs], spec.outputs, precision == "bfloat16")
        self.name = f"torch {device} {precision}"


class OpenVINOEngine(Engine):
    """OpenVINO on the processor. The converted network is kept in the cache, so that torch is loaded only once."""

    def __init__(self, spec: NetworkSpec, precision: str = "bfloat16") -> None:
        import openvino as ov

        self.name = f"openvino cpu {precision}"
        self._spec = spec
        network = _converted(spec, ov, ov.Core())
        network.reshape({k: [PART, *shape] for k, (_, shape) in enumerate(spec.inputs)})
        hint = "bf16" if precision == "bfloat16" else "f32"
        network = compiled(network, INFERENCE_PRECISION_HINT=hint, NUM_STREAMS=STREAMS)
        self._requests = [network.create_infer_request() for _ in range(STREAMS)]
        self._lock = threading.Lock()

    def run(self, inputs: Values) -> Values:
        given = [inputs[name] for name, _ in self._spec.inputs]
        parts: list[list[np.ndarray]] = []
        with self._lock:
            for at in range(0, len(given[0]), BATCH):
                batch = [a[at : at + BATCH] for a in given]
                working = list(zip(self._requests, range(0, len(batch[0]), PART), strict=False))
                for request, first in working:
                    request.start_async({k: _filled(a[first : first + PART]) for k, a in enumerate(batch)})
                for request, first in working:
                    request.wait()
                    found = [request.get_output_tensor(k).data for k in range(len(self._spec.outputs))]
                    parts.append([a[: len(batch[0]) - first].copy() for a in found])
        return {name: np.concatenate([p[k] for p in parts]) for k, name in enumerate(self._spec.outputs)}


def _filled(part: np.ndarray) -> np.ndarray:
    """Some items, zeros behind them where they are fewer than PART."""
    return np.pad(part, [(0, PART - len(part))] + [(0, 0)] * (part.ndim - 1)) if len(part) < PART else part


def _converted(spec: NetworkSpec, ov, core):
    """The OpenVINO form of a checkpoint, kept in the cache under the checkpoint's sha256 where there is room for it."""
    path = cache_dir() / "openvino" / f"{registry.sha256(spec.card.name)[:16]}-{ov.__version__.split('-')[0]}.xml"
    with contextlib.suppress(RuntimeError):  # not there, not to be read, damaged: it is made again
        return core.read_model(path)
    import torch

    _log.info("%s is being converted for OpenVINO; this is done once.", spec.card.name)
    example = tuple(torch.zeros(2, *shape) for _, shape in spec.inputs)
    network = ov.convert_model(registry.load(spec.card.name), example_input=example)
    with contextlib.suppress(OSError, RuntimeError):  # a full or locked cache costs time at the next run, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            ov.save_model(network, temporary, compress_to_fp16=False)
            for suffix in (".bin", ".xml"):
                temporary.with_suffix(suffix).replace(path.with_suffix(suffix))
    return network


def candidates() -> dict[str, Callable[[NetworkSpec], Engine]]:
    """Name -> maker, fastest kind first; only what this machine can run."""
    found: dict[str, Callable[[NetworkSpec], Engine]] = {}
    if importlib.util.find_spec("torch") and _has_gpu():
        found["torch cuda bfloat16"] = lambda spec: TorchEngine(spec, "cuda", "bfloat16")
        found["torch cuda float32"] = lambda spec: TorchEngine(spec, "cuda")
    if importlib.util.find_spec("openvino"):
        if has_bf16():
            found["openvino cpu bfloat16"] = lambda spec: OpenVINOEngine(spec, "bfloat16")
        found["openvino cpu float32"] = lambda spec: OpenVINOEngine(spec, "float32")
    if importlib.util.find_spec("torch"):
        found["torch cpu float32"] = lambda spec: TorchEngine(spec)
    return found


@functools.cache
def has_bf16() -> bool:
    """Does OpenVINO compute in bfloat16 on this processor? Where not, it takes the hint and computes in float32."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _has_gpu() -> bool:
    if not Path("/proc/driver/nvidia").exists() and platform.system() == "Linux":
        return False  # spares the import of torch where there is no driver
    import torch

    return torch.cuda.is_available()


_OPEN: dict[tuple[str, str], Engine] = {}
_OPEN_LOCK = threading.Lock()


def open_engine(spec: NetworkSpec, wanted: str = "auto") -> Engine:
    """Load a network into an engine; kept for the life of the process.

    wanted  auto, a kind (torch, openvino: its fastest form that agrees with float32) or a full name of `candidates()`
    Raises EngineError where the engine cannot be had, ModelError where the checkpoint cannot.
    """
    sha256 = registry.sha256(spec.card.name)
    with _OPEN_LOCK:
        offered = candidates()
        fitting = {n: make for n, make in offered.items() if wanted in ("auto", n) or n.startswith(wanted + " ")}
        if not fitting:
            raise EngineError(
                "The engine {wanted!r} cannot run here: this machine offers {choices}.",
                wanted=wanted,
                choices=", ".join(offered),
            )
        name = next(iter(fitting)) if len(fitting) == 1 else _fastest(spec, fitting)
        if (sha256, name) not in _OPEN:
            _OPEN[sha256, name] = fitting[name](spec)
        return _OPEN[sha256, name]


def _processor() -> str:
    """What kind of processor this is, to its model: which engine is fastest depends on it."""
    with contextlib.suppress(OSError):  # Linux; there `platform` knows no more than x86_64
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _fastest(spec: NetworkSpec, fitting: dict[str, Callable[[NetworkSpec], Engine]]) -> str:
    """The fastest engine that agrees with float32; measured once for a checkpoint and a machine, then remembered."""
    memory = cache_dir() / "engines.json"
    versions = [importlib.metadata.version(p) for p in ("torch", "openvino") if importlib.util.find_spec(p)]
    key = ", ".join([registry.sha256(spec.card.name)[:16], _processor(), *versions, *sorted(fitting)])
    try:
        known = dict(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    if str(known.get(key)) not in fitting:
        _log.info("Engines for %s are being compared; this is done once on a machine.", spec.card.name)
        found = compare(spec, fitting)
        known[key] = max(found, key=lambda name: found[name]["faces_per_s"] * found[name]["agrees"])
        with contextlib.suppress(OSError):  # measured again at the next run
            memory.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=memory.parent) as folder:
                temporary = Path(folder, memory.name)
                temporary.write_text(json.dumps(known, indent=1))
                temporary.replace(memory)
    return known[key]


def compare(spec: NetworkSpec, makers: dict[str, Callable[[NetworkSpec], Engine]] | None = None) -> dict[str, dict]:
    """Speed and agreement of each engine on the network's sample: name -> faces_per_s, psnr_db against float32 torch,
    agrees."""
    inputs = spec.sample()
    count = len(next(iter(inputs.values())))
    reference = TorchEngine(spec).run(inputs)
    table = {}
    for name, make in (makers or candidates()).items():
        engine = make(spec)
        found = engine.run(inputs)
        error = max(float(np.mean((found[k] - reference[k]) ** 2)) for k in reference)
        psnr = 99.0 if error == 0 else min(99.0, -10 * float(np.log10(error)))
        began = time.perf_counter()
        for _ in range(2):
            engine.run(inputs)
        speed = 2 * count / (time.perf_counter() - began)
        table[name] = {"faces_per_s": speed, "psnr_db": psnr, "agrees": psnr >= MIN_PSNR_DB}
    return table

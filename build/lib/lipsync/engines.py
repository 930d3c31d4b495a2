"""What runs a generator: torch (the reference, on a processor or a GPU) or OpenVINO (bf16 or float32 on a processor).

`open_engine(name, "auto")` takes the fastest one that agrees with float32 torch within 40 dB PSNR on a real face, and
remembers the choice for this checkpoint on this machine. An engine takes and gives float32 numpy arrays and knows
nothing of frames or sound. An engine whose library is not installed is absent from `candidates()`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .checkpoints import registry
from .errors import EngineError
from .files import cache_dir

BATCH = 32
REFERENCES = {"wav2lip-warp": 4}  # of architectures that see more than one
MIN_PSNR_DB = 40.0


class Engine:
    """Runs one generator. True of every engine: `run` may be called from any thread, one call at a time.

    run(mel (B, 1, 80, 16) float32, face (B, 3 + 3 R, 96, 96) float32) -> (B, C, 96, 96) float32, B from 1 up; R is the
    number of references (REFERENCES), C 3 for a picture in 0..1, and more for maps of which one is composed.
    """

    name: str

    def run(self, mel: np.ndarray, face: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class TorchEngine(Engine):
    """Eager torch; bf16 autocast on a GPU when asked for."""

    def __init__(self, model: str, device: str = "cpu", precision: str = "float32") -> None:
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError("torch sees no GPU on this machine: use the engine 'openvino' or 'torch'.")
        self.name = f"torch {device} {precision}"
        self._torch, self._device = torch, device
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._net = registry.load(model).to(device).eval()

    def run(self, mel: np.ndarray, face: np.ndarray) -> np.ndarray:
        torch = self._torch
        with (
            torch.inference_mode(),
            torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16),
        ):
            out = self._net(torch.from_numpy(mel).to(self._device), torch.from_numpy(face).to(self._device))
        return out.float().cpu().numpy()


class OpenVINOEngine(Engine):
    """OpenVINO on the processor. The converted network is kept in the cache, so that torch is loaded only once."""

    def __init__(self, model: str, precision: str = "bfloat16") -> None:
        import openvino as ov

        self.name = f"openvino cpu {precision}"
        core = ov.Core()
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        network = _converted(model, ov, core)
        network.reshape({0: [BATCH, 1, 80, 16], 1: [BATCH, _channels(model), 96, 96]})
        self._request = core.compile_model(network, "CPU", hints).create_infer_request()
        self._lock = threading.Lock()

    def run(self, mel: np.ndarray, face: np.ndarray) -> np.ndarray:
        parts = []
        for at in range(0, len(mel), BATCH):
            count = min(BATCH, len(mel) - at)
            fill = [(0, BATCH - count)] + [(0, 0)] * 3
            pair = [np.pad(a[at : at + count], fill) if count < BATCH else a[at : at + count] for a in (mel, face)]
            with self._lock:
                parts.append(next(iter(self._request.infer(dict(enumerate(pair))).values()))[:count].copy())
        return np.concatenate(parts)


def _channels(model: str) -> int:
    """Channels of a generator's pictures: the masked frame and its references."""
    return 3 + 3 * REFERENCES.get(registry.cards()[model].architecture, 1)


def _converted(model: str, ov, core):
    """The OpenVINO form of a checkpoint, kept in the cache under the checkpoint's sha256 where there is room for it."""
    path = cache_dir() / "openvino" / f"{registry.sha256(model)[:16]}-{ov.__version__.split('-')[0]}.xml"
    with contextlib.suppress(RuntimeError):  # not there, not to be read, damaged: it is made again
        return core.read_model(path)
    import torch

    example = (torch.zeros(2, 1, 80, 16), torch.zeros(2, _channels(model), 96, 96))
    network = ov.convert_model(registry.load(model), example_input=example)
    with contextlib.suppress(OSError, RuntimeError):  # a full or locked cache costs time at the next run, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            ov.save_model(network, temporary, compress_to_fp16=False)
            for suffix in (".bin", ".xml"):
                temporary.with_suffix(suffix).replace(path.with_suffix(suffix))
    return network


def candidates() -> dict[str, Callable[[str], Engine]]:
    """Name -> maker, fastest kind first; only what this machine can run."""
    found: dict[str, Callable[[str], Engine]] = {}
    if importlib.util.find_spec("torch") and _has_gpu():
        found["torch cuda bfloat16"] = lambda model: TorchEngine(model, "cuda", "bfloat16")
        found["torch cuda float32"] = lambda model: TorchEngine(model, "cuda")
    if importlib.util.find_spec("openvino"):
        if has_bf16():
            found["openvino cpu bfloat16"] = lambda model: OpenVINOEngine(model, "bfloat16")
        found["openvino cpu float32"] = lambda model: OpenVINOEngine(model, "float32")
    if importlib.util.find_spec("torch"):
        found["torch cpu float32"] = lambda model: TorchEngine(model)
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


def open_engine(model: str, wanted: str = "auto") -> Engine:
    """Load a generator into an engine; kept for the life of the process.

    wanted  auto, a kind (torch, openvino: its fastest form that agrees with float32) or a full name of `candidates()`
    Raises EngineError where the engine cannot be had, ModelError where the checkpoint cannot.
    """
    sha256 = registry.sha256(model)
    with _OPEN_LOCK:
        offered = candidates()
        fitting = {n: make for n, make in offered.items() if wanted in ("auto", n) or n.startswith(wanted + " ")}
        if not fitting:
            raise EngineError(f"The engine {wanted!r} cannot run here: this machine offers {', '.join(offered)}.")
        name = next(iter(fitting)) if len(fitting) == 1 else _fastest(model, fitting)
        if (sha256, name) not in _OPEN:
            _OPEN[sha256, name] = fitting[name](model)
        return _OPEN[sha256, name]


def _processor() -> str:
    """What kind of processor this is, to its model: which engine is fastest depends on it."""
    with contextlib.suppress(OSError):  # Linux; there `platform` knows no more than x86_64
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _fastest(model: str, fitting: dict[str, Callable[[str], Engine]]) -> str:
    """The fastest engine that agrees with float32; measured once for a checkpoint and a machine, then remembered."""
    memory = cache_dir() / "engines.json"
    versions = [importlib.metadata.version(p) for p in ("torch", "openvino") if importlib.util.find_spec(p)]
    key = ", ".join([registry.sha256(model)[:16], _processor(), *versions, *sorted(fitting)])
    try:
        known = dict(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    if str(known.get(key)) not in fitting:
        known[key] = max(compare(model, fitting).items(), key=lambda item: item[1]["faces_per_s"] * item[1]["agrees"])[
            0
        ]
        with contextlib.suppress(OSError):  # measured again at the next run
            memory.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=memory.parent) as folder:
                temporary = Path(folder, memory.name)
                temporary.write_text(json.dumps(known, indent=1))
                temporary.replace(memory)
    return known[key]


def compare(model: str, makers: dict[str, Callable[[str], Engine]] | None = None) -> dict[str, dict]:
    """Speed and agreement of each engine on a real face: name -> faces_per_s, psnr_db against float32 torch, agrees."""
    mel, face = probe_input()
    face = np.concatenate([face[:, :3]] + [face[:, 3:]] * (_channels(model) // 3 - 1), axis=1)
    reference = TorchEngine(model).run(mel, face)
    table = {}
    for name, make in (makers or candidates()).items():
        engine = make(model)
        error = float(np.mean((engine.run(mel, face) - reference) ** 2))
        psnr = 99.0 if error == 0 else min(99.0, -10 * float(np.log10(error)))
        began = time.perf_counter()
        for _ in range(2):
            engine.run(mel, face)
        speed = 2 * len(mel) / (time.perf_counter() - began)
        table[name] = {"faces_per_s": speed, "psnr_db": psnr, "agrees": psnr >= MIN_PSNR_DB}
    return table


def probe_input() -> tuple[np.ndarray, np.ndarray]:
    """A batch to compare engines on: the public-domain astronaut portrait, moved about, under varied sound."""
    from skimage.data import astronaut

    from .crop import cut, to_network

    picture, rng = astronaut(), np.random.default_rng(0)
    shifts = rng.uniform(-8, 8, (BATCH, 2))
    crops = np.stack([cut(picture, np.array([168 + x, 68 + y, 276 + x, 189 + y], np.float32)) for x, y in shifts])
    mel = np.cumsum(rng.normal(0, 0.6, (BATCH, 1, 80, 16)), axis=2) + rng.uniform(-3, 3, (BATCH, 1, 1, 1))
    return np.clip(mel, -4, 4).astype(np.float32), to_network(crops, np.roll(crops, 1, axis=0))

"""The evaluator: SyncNet over streamed crops and sound, one embedding a window of five frames and 200 ms.

It is a checkpoint of the architecture `syncnet`: the published `syncnet-v2`, once fetched, else `syncnet-lab`.
Its card may say `input.lip_px: 112` (pictures that count as doubled to 224) and `input.compare: "unit length"`
(embeddings brought to length 1 before they are compared).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lipsync import audio
from lipsync.checkpoints import registry
from lipsync.compiled import compiled
from lipsync.engines import has_bf16
from lipsync.errors import ModelError
from lipsync.media.reader import SoundReader
from lipsync.networks.syncnet import EMBEDDING, flat_lip

from .protocols import FRAMES

BATCH = 20  # windows at once, always so many: numbers do not depend on where a video is cut
MFCC_ROWS, MFCC_COEFFICIENTS, ROWS_A_FRAME = 20, 13, 4

Run = Callable[[np.ndarray], np.ndarray]


class Evaluator:
    """An evaluator, ready to embed; any number of threads may use it at once, they take turns.

    name      a checkpoint of the architecture syncnet; "auto": syncnet-v2 where it is here, else syncnet-lab
    fast      bf16, the same within 1 %, where the processor or GPU computes in it; `fast` says whether it does. Else
              float32. By OpenVINO on a processor, by torch on a GPU where there is one
    raises    ModelError where there is no such evaluator or its file is not here
    """

    def __init__(self, name: str = "auto", fast: bool = False) -> None:
        cards = registry.cards()
        if name == "auto":
            name = "syncnet-v2" if cards["syncnet-v2"].path else "syncnet-lab"
        evaluators = [n for n, card in cards.items() if card.architecture == "syncnet"]
        if name not in evaluators:
            raise ModelError(
                "There is no evaluator named {name!r}: choose one of {choices}.",
                name=name,
                choices=", ".join(evaluators),
            )
        self.name, self.sha256 = name, registry.sha256(name)
        self.fast = fast = fast and (torch.cuda.is_available() or has_bf16())
        facts = cards[name].facts.get("input", {})
        self.size_px = int(facts.get("lip_px", 224))
        self._lock = threading.Lock()  # what runs the networks takes one batch at a time
        self.unit = facts.get("compare") == "unit length"
        network = registry.load(name)
        lip, sound = flat_lip(network, halved=self.size_px == 112), _Sound(network)
        run, where = (_on_gpu, "torch cuda") if torch.cuda.is_available() else (_on_processor, "openvino cpu")
        self.engine = f"{where} {'bf16' if fast else 'float32'}"
        self._lip = run(lip, (BATCH, 3 * FRAMES, self.size_px, self.size_px), np.uint8, fast)
        self._sound = run(sound, (BATCH, 1, MFCC_COEFFICIENTS, MFCC_ROWS), np.float32, fast)

    @property
    def detector(self) -> str:
        """The face detector whose boxes it knows: S3FD for the published one where that is here, else mediapipe."""
        return "s3fd" if self.name == "syncnet-v2" and registry.cards()["s3fd"].path else "mediapipe"

    def faces(self, crops: np.ndarray) -> np.ndarray:
        """Embed every window of five crops: (T, 3, S, S) uint8 from `planes`, T >= 5 -> (T - 4, 1024) float32."""
        count = len(crops) - FRAMES + 1
        crops = np.ascontiguousarray(crops)
        shape, plane = (count, 3 * FRAMES, *crops.shape[2:]), crops.strides[0]
        windows = np.lib.stride_tricks.as_strided(crops, shape, (plane, *crops.strides[1:]), writeable=False)
        return self._batched(self._lip, windows)

    def sound(self, mfcc: np.ndarray) -> np.ndarray:
        """Embed the sound of windows: (B, 20, 13) MFCC rows -> (B, 1024) float32."""
        return self._batched(self._sound, mfcc.transpose(0, 2, 1)[:, None].astype(np.float32, copy=False))

    def _batched(self, run: Run, inputs: np.ndarray) -> np.ndarray:
        out = np.empty((len(inputs), EMBEDDING), np.float32)
        for at in range(0, len(inputs), BATCH):
            part = inputs[at : at + BATCH]
            full = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), 0)]) if len(part) < BATCH else part
            full = np.ascontiguousarray(full)
            with self._lock:
                out[at : at + BATCH] = run(full)[: len(part)]
        if self.unit:
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        return out


class _Sound(nn.Module):
    """SyncNet's sound encoder by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(network.netcnnaud, nn.Flatten(), network.netfcaud)

    def forward(self, mfcc: Tensor) -> Tensor:
        return self.layers(mfcc)


def _on_processor(network: nn.Module, shape: tuple[int, ...], kind: type, fast: bool) -> Run:
    """OpenVINO, for inputs of one shape; uint8 ones are made float inside."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    converted = ov.convert_model(network, example_input=torch.zeros(shape))
    converted.reshape(list(shape))
    prepare = PrePostProcessor(converted)
    if kind is np.uint8:
        prepare.input().tensor().set_element_type(ov.Type.u8)
    request = compiled(prepare.build(), INFERENCE_PRECISION_HINT="bf16" if fast else "f32").create_infer_request()
    return lambda inputs: next(iter(request.infer([inputs]).values()))


def _on_gpu(network: nn.Module, shape: tuple[int, ...], kind: type, fast: bool) -> Run:
    network = network.cuda()

    def run(inputs: np.ndarray) -> np.ndarray:
        # Unless told otherwise cuDNN multiplies float32 as TF32, which keeps ten bits of the mantissa.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=fast)
        with exact, torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=fast):
            return network(torch.from_numpy(inputs).cuda().float()).float().cpu().numpy()

    return run


def planes(crop: np.ndarray) -> np.ndarray:
    """A crop (S, S, 3) uint8 RGB as the evaluator sees it: (3, S, S), BGR."""
    return np.ascontiguousarray(crop[..., ::-1].transpose(2, 0, 1))


def audio_features(path: str | Path, notes: list[str] | None = None) -> tuple[np.ndarray, int, float]:
    """A file's sound as the evaluator hears it, streamed; `notes` takes sentences on what was damaged or chosen.

    returns  MFCC (T, 13) float32, 100 rows a second (5 KB a second is all that is kept); samples at 16 kHz; peak, 0..1
    raises   InputError where there is no sound
    """
    facts = {"samples": 0, "peak": 0.0}

    def chunks() -> Iterator[np.ndarray]:
        with SoundReader(path, audio.SAMPLE_RATE, channels=1) as reader:
            for chunk in reader:
                facts["samples"] += len(chunk)
                facts["peak"] = max(facts["peak"], float(np.abs(chunk).max()))
                yield np.clip(np.round(chunk[:, 0] * 32768), -32768, 32767)
            if notes is not None:
                notes.extend(reader.notes)

    rows = [block.astype(np.float32) for block in audio.mfcc_syncnet_blocks(chunks())]
    return np.concatenate(rows), facts["samples"], facts["peak"]


def sound_windows(mfcc: np.ndarray, starts: Iterable[int]) -> np.ndarray:
    """MFCC rows of windows that begin with frames `starts`: (B, 20, 13); beyond the end the last row repeats."""
    at = np.asarray(list(starts))[:, None] * ROWS_A_FRAME + np.arange(MFCC_ROWS)
    return mfcc[np.clip(at, 0, len(mfcc) - 1)]

"""The judge: SyncNet over streamed crops and sound, one embedding a window of five frames and 200 ms.

A judge is a checkpoint of the architecture `syncnet`: the published `syncnet-v2`, once fetched, else `syncnet-lab`.
Its card may say `input.lip_px: 112` (pictures that count as doubled to 224) and `input.compare: "unit length"`
(embeddings brought to length 1 before they are compared).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipsync import audio, checkpoints
from lipsync.errors import ModelError
from lipsync.media import SoundReader
from lipsync.networks.syncnet import flat_lip

from .protocols import FRAMES

BATCH = 20  # windows at once, always so many: numbers do not depend on where a video is cut
MFCC_ROWS, ROWS_A_FRAME = 20, 4


class Judge:
    """A judge, ready to embed.

    name      a checkpoint of the architecture syncnet; "auto": syncnet-v2 where it is here, else syncnet-lab
    fast      OpenVINO in bf16 on a processor: the same within 1 %; else float32 in torch, on a GPU where there is one
    raises    ModelError where there is no such judge or its file is not here
    """

    def __init__(self, name: str = "auto", fast: bool = False) -> None:
        cards = checkpoints.cards()
        if name == "auto":
            name = "syncnet-v2" if cards["syncnet-v2"].path else "syncnet-lab"
        judges = [n for n, card in cards.items() if card.architecture == "syncnet"]
        if name not in judges:
            raise ModelError(f"There is no judge named {name!r}: choose one of {', '.join(judges)}.")
        self.name, self.sha256, self.fast = name, checkpoints.sha256(name), fast
        facts = cards[name].facts.get("input", {})
        self.size_px = int(facts.get("lip_px", 224))
        self._unit = facts.get("compare") == "unit length"
        network = checkpoints.load(name)
        self._device = torch.device("cuda" if torch.cuda.is_available() and not fast else "cpu")
        self._sound = network.to(self._device)
        self._lip = flat_lip(network, halved=self.size_px == 112).to(self._device, memory_format=torch.channels_last)
        self._request = _openvino(self._lip, self.size_px) if fast else None

    @property
    def detector(self) -> str:
        """The face detector whose boxes it knows: S3FD for the published one where that is here, else mediapipe."""
        return "s3fd" if self.name == "syncnet-v2" and checkpoints.cards()["s3fd"].path else "mediapipe"

    def faces(self, stacks: np.ndarray) -> np.ndarray:
        """Embed windows of five crops: (B, 15, S, S) uint8, from `stack` -> (B, 1024) float32."""
        return self._batched(self._embed_lips, stacks)

    def sound(self, mfcc: np.ndarray) -> np.ndarray:
        """Embed the sound of windows: (B, 20, 13) MFCC rows -> (B, 1024) float32."""
        return self._batched(self._embed_sound, mfcc)

    def _batched(self, run, inputs: np.ndarray) -> np.ndarray:
        out = np.empty((len(inputs), 1024), np.float32)
        for at in range(0, len(inputs), BATCH):
            part = inputs[at : at + BATCH]
            full = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), 0)]) if len(part) < BATCH else part
            out[at : at + BATCH] = run(full)[: len(part)]
        return out

    def _embed_lips(self, stacks: np.ndarray) -> np.ndarray:
        if self._request is not None:
            found = torch.from_numpy(next(iter(self._request.infer([stacks.astype(np.float32)]).values())).copy())
            return self._compared(found)
        with torch.inference_mode():
            pictures = torch.from_numpy(stacks).to(self._device).float()
            return self._compared(self._lip(pictures.contiguous(memory_format=torch.channels_last)))

    def _embed_sound(self, mfcc: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows = torch.from_numpy(np.ascontiguousarray(mfcc.transpose(0, 2, 1)[:, None], np.float32))
            return self._compared(self._sound.audio(rows.to(self._device)))

    def _compared(self, found: Tensor) -> np.ndarray:
        return (functional.normalize(found.float()) if self._unit else found.float()).cpu().numpy()


def _openvino(network: torch.nn.Module, size_px: int):
    """A bf16 request for batches of BATCH windows."""
    import openvino as ov

    example = torch.zeros(BATCH, 15, size_px, size_px)
    converted = ov.convert_model(network, example_input=example)
    converted.reshape([BATCH, 15, size_px, size_px])
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    return ov.Core().compile_model(converted, "CPU", hints).create_infer_request()


def stack(crops: list[np.ndarray]) -> np.ndarray:
    """Five crops (S, S, 3) uint8 RGB -> (15, S, S) uint8, BGR, colour by colour."""
    assert len(crops) == FRAMES, "a window is five frames"
    return np.stack(crops)[..., ::-1].transpose(3, 0, 1, 2).reshape(3 * FRAMES, *crops[0].shape[:2])


def hear(path) -> tuple[np.ndarray, int, float]:
    """A file's sound as the judge hears it, streamed.

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

    rows = [block.astype(np.float32) for block in audio.mfcc_syncnet_blocks(chunks())]
    return np.concatenate(rows), facts["samples"], facts["peak"]


def sound_windows(mfcc: np.ndarray, starts: Iterable[int]) -> np.ndarray:
    """MFCC rows of windows that begin with frames `starts`: (B, 20, 13); beyond the end the last row repeats."""
    at = np.asarray(list(starts))[:, None] * ROWS_A_FRAME + np.arange(MFCC_ROWS)
    return mfcc[np.clip(at, 0, len(mfcc) - 1)]

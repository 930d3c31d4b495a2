"""The evaluator: SyncNet, narrowed, trained on people that neither the expert nor the generator has seen.

Same contrast as the expert's (groups of one speaker, own-clip negatives), with SyncNet's inputs: MFCC and 224-pixel
faces with room around them, 0..255, BGR. Its distance is Euclidean, so the contrast is over the negative squared
distance of embeddings brought to length 1 in training: at that length both orders are the same, and scoring may use
either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lipsync.faces.landmarks import INNER_LIPS
from lipsync.networks.syncnet import folded

from .. import networks
from ..config import Config, TrainingError
from ..data.arrays import _NOISE, EVALUATOR_VIEW, Arrays, Augmentation, draw_augmentation, evaluator_region
from ..data.sampling import mouth_shape, places_of, speaker_weights
from ..data.shards import FEATURES, face_card
from ..loop import Loop
from ..metrics import sync_figures
from .base import Task
from .sync_expert import Shapes, Temperature, contrast

SIZE_PX = 224
HALF_PX = 112  # crops are kept at this size and doubled on the way in: the stored view has no more detail
ROWS = 20  # of MFCC in a window: 200 ms
MFCC_AHEAD = FEATURES["mfcc"].ahead  # rows before a clip's first frame


@dataclass(frozen=True)
class SyncNetConfig(Config):
    """Of an evaluator."""

    task: str = "syncnet"
    steps: int = 1000
    aug_strength: float = 0.6
    misc: float = 0.3
    speakers: int = 3  # groups of windows of one speaker in a batch
    windows: int = 32  # windows a group
    shapes: float = 1.0  # weight of the auxiliary question for the mouth's shape

    at_least_1: ClassVar = (*Config.at_least_1, "speakers", "windows")

    def check(self) -> None:
        super().check()
        if self.windows % 4:
            raise TrainingError(f"windows is a multiple of 4, not {self.windows}: four are drawn from one clip.")


class SyncNetTask(Task):
    """Trains an evaluator."""

    Config = SyncNetConfig
    splits = ("judge", "judge")
    kept, measure, unit = "judge", "sync_accuracy", "windows"

    @staticmethod
    def architecture(config: SyncNetConfig) -> tuple[str, dict]:
        return "syncnet", {"width": config.width}

    @staticmethod
    def card(config: SyncNetConfig) -> dict:
        return {
            "input": {
                "lip": "(B,3,5,224,224) BGR 0..255",
                "lip_px": HALF_PX,
                "compare": "unit length",
                "mfcc": "(B,1,13,20), protocol.md section 1",
                "mel_start_frames": 0,
            },
            "crop": face_card(EVALUATOR_VIEW, SIZE_PX),
        }

    def __init__(self, config: SyncNetConfig, teach: Arrays, tune: Arrays, choose_from: int = 40) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        evaluator = networks.load_initial_weights(networks.evaluator(config), config)
        self.networks = {"judge": evaluator, "temperature": Temperature(), "shapes": Shapes(1024, 5)}
        decayed = [p for p in self.networks["judge"].parameters() if p.ndim > 1]
        others = [p for n in self.networks.values() for p in n.parameters() if p.ndim <= 1]
        self.optimisers = {
            "judge": torch.optim.AdamW(
                [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], config.lr
            )
        }
        self.weights = speaker_weights(teach, {"misc": config.misc})
        self.per_step = config.speakers * config.windows
        self.chosen = list(range(0, len(tune.clips), max(1, len(tune.clips) // choose_from)))

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """mfcc (G W, 1, 13, 20) float32; lip (G W, 3, 5, 112, 112) uint8 BGR; near (G, W, W) bool; shape as in
        sync_batch."""
        c, count = self.config, self.config.speakers * self.config.windows
        strength = c.aug_strength * min(1.0, 0.2 + step / max(c.ramp, 1))
        mfccs = np.empty((count, 1, 13, ROWS), np.float32)
        lips = np.empty((count, 3, 5, HALF_PX, HALF_PX), np.uint8)
        places, near = places_of(self.teach, rng, self.weights, c.speakers, c.windows, 5, 0.4)
        shape = np.empty((count, 5, 4), np.float32)
        now, augment, mfcc, shapes, occlusion = None, None, None, None, None
        for k, (i, t, rate) in enumerate(places):
            if i != now or k % 4 == 0:
                now, augment = i, draw_augmentation(rng, strength, patches=False)
                points = self.teach.landmarks(i)
                shapes, occlusion = mouth_shape(points), draw_occlusion(points, rng, strength)
                mfcc = change_mfcc(self.teach.mfcc(i), rng, strength)
            mfccs[k, 0] = mfcc_window(mfcc, t + self.teach.clips[i].offset, rate)
            at = np.minimum(t + np.round(np.arange(5) * rate).astype(int), self.teach.clips[i].frames - 1)
            shape[k] = shapes[at]
            lips[k] = lip_frames(occluded(self.teach.frames(i)[at], occlusion), augment, rng)
        return {"mfcc": mfccs, "lip": lips, "near": near, "shape": shape.reshape(count, -1)}

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        """One update."""
        c = self.config
        network = self.networks["judge"]
        with loop.autocast():
            face = lip_embedding(network, batch["lip"])
            audio = network.audio(batch["mfcc"])
        audio, face = (functional.normalize(e.float()) for e in (audio, face))
        shapes = self.networks["shapes"](audio, face, batch["shape"])
        audio, face = (e.view(c.speakers, c.windows, -1) for e in (audio, face))
        loss, right = contrast(audio, face, batch["near"], self.networks["temperature"]())
        norm = loop.learn("judge", min(1.0, 0.03 + loop.step / max(c.ramp, 1)) * loss + c.shapes * shapes)
        return {"loss": float(loss.detach()), "sync_acc": float(right), "shapes": float(shapes.detach()), "norm": norm}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Off-sync accuracy and offsets on the people of the evaluator's split that were set aside."""
        return sync_figures(lambda i: embed_clip(network, self.tune, i), self.chosen)


Occlusion = tuple[tuple[int, int, int, int], np.ndarray] | None


def draw_occlusion(points: np.ndarray, rng: np.random.Generator, strength: float) -> Occlusion:
    """A window x0 y0 x1 y1 around a clip's mouth, in pixels of the stored crop, outside of which nothing is to be seen,
    and the colour (3,) that lies there; None for as many clips again, which are seen whole.

    The evaluator's crop shows the whole face, by which it would learn its few people by heart; only the mouth is the
    same in all.
    """
    if rng.random() >= 0.8 * strength:
        return None
    x, y = points[:, INNER_LIPS].mean((0, 1))
    left, up, right, down = rng.uniform((32, 20, 32, 30), (70, 70, 70, 60))
    return (max(int(x - left), 0), max(int(y - up), 0), int(x + right), int(y + down)), rng.integers(0, 256, 3)


def occluded(frames: np.ndarray, occlusion: Occlusion) -> np.ndarray:
    """(T, 160, 160, 3) uint8 with all but the occlusion's window under its colour."""
    if occlusion is None:
        return frames
    (x0, y0, x1, y1), colour = occlusion
    out = np.empty_like(frames)
    out[:] = colour
    out[:, y0:y1, x0:x1] = frames[:, y0:y1, x0:x1]
    return out


def lip_embedding(network: nn.Module, lip: Tensor) -> Tensor:
    """SyncNet.lip of pictures doubled to 224, cheaper by far and equal up to rounding.

    As lipsync.networks.syncnet.flat_lip, for learning.

    lip      (B, 3, 5, 112, 112), BGR, 0..255
    returns  (B, 1024)
    """
    first = network.netcnnlip[0]
    kernel = folded(first.weight, halved=True)
    x = functional.pad(lip.float().flatten(1, 2), (1, 0, 1, 0), mode="replicate")
    x = functional.conv2d(x.contiguous(memory_format=torch.channels_last), kernel, first.bias)[:, :, None]
    for layer in network.netcnnlip[1:]:
        x = layer(x)
    return network.netfclip(x.flatten(1))


def mfcc_window(mfcc: np.ndarray, frame: float, rate: float = 1.0) -> np.ndarray:
    """(K, 13) -> (13, 20) from the moment of a frame on; beyond the ends the last row repeats; rate > 1: faster."""
    start = MFCC_AHEAD + round(4 * frame)
    if rate == 1.0:
        return mfcc[np.clip(np.arange(ROWS) + start, 0, len(mfcc) - 1)].T
    at = np.clip(start + np.arange(ROWS) * rate, 0, len(mfcc) - 1)
    low = at.astype(int)
    part = (at - low).astype(np.float32)[:, None]
    return (mfcc[low] * (1 - part) + mfcc[np.minimum(low + 1, len(mfcc) - 1)] * part).T


def change_mfcc(mfcc: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Another voice, microphone and room: (K, 13) -> the same shape.

    The cepstrum without its lifter, taken back to 26 smooth bands: a longer or shorter vocal tract, an equaliser, a
    floor of noise; then forth again. The first column, the frame's log energy, changes as the bands' sum does.
    """
    if not strength:
        return mfcc
    bands = np.arange(BANDS)
    shape = mfcc.astype(np.float32) / _LIFTER
    shape[:, 0] = 0
    level = shape @ _COSINES + (mfcc[:, :1] - np.log(BANDS))  # log energies whose sum is about the frame's
    before = np.logaddexp.reduce(level, axis=1)
    changed = level
    if rng.random() < 0.7 * strength:
        at = np.clip(bands * np.exp(rng.normal(0, 0.07 * strength)), 0, BANDS - 1)
        low = np.floor(at).astype(int)
        part = (at - low).astype(np.float32)
        changed = changed[:, low] * (1 - part) + changed[:, np.minimum(low + 1, BANDS - 1)] * part
    curve = np.interp(bands, np.linspace(0, BANDS - 1, 5), rng.normal(0, 0.8 * strength, 5)) + rng.normal(0, strength)
    changed = changed + curve.astype(np.float32)
    if rng.random() < 0.4 * strength:
        loud = float(np.percentile(changed, 95))
        floor = loud - rng.uniform(2, 7) + np.interp(bands, np.linspace(0, BANDS - 1, 4), rng.normal(0, 0.7, 4))
        start = int(rng.integers(0, max(len(_NOISE) - changed.size, 1)))
        grain = np.resize(_NOISE[start : start + changed.size], changed.shape) * np.float32(0.4)
        changed = np.logaddexp(changed, floor.astype(np.float32) + grain)
    out = changed @ _COSINES.T * _LIFTER
    out[:, 0] = mfcc[:, 0] + np.logaddexp.reduce(changed, axis=1) - before
    return out.astype(np.float32)


BANDS = 26
_LIFTER = (1 + 11 * np.sin(np.pi * np.arange(13) / 22)).astype(np.float32)
_COSINES = (np.sqrt(2 / BANDS) * np.cos(np.pi * np.arange(13)[:, None] * (np.arange(BANDS) + 0.5) / BANDS)).astype(
    np.float32
)


def lip_frames(frames: np.ndarray, augment: Augmentation | None, rng: np.random.Generator | None = None) -> np.ndarray:
    """Five stored crops -> (3, 5, 112, 112) uint8 BGR, by SyncNet's crop; `augment` gives shift, turn, scale and
    colour."""
    x0, y0, x1, y1 = evaluator_region()
    unit, out = (x1 - x0) / HALF_PX, np.empty((3, len(frames), HALF_PX, HALF_PX), np.uint8)
    linear, centre = np.eye(2), np.zeros(2)
    if augment is not None:
        plain = np.array([160 / 1.56 / 96, 1.12 * 160 / 1.56 / 96])  # the matrix of the networks' crop without changes
        linear = augment.matrix[:, :2] / plain
        centre = augment.matrix[:, :2] @ [47.5, 47.5] + augment.matrix[:, 2] - [79.5, 64.7]
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) - 0.5 + centre
    linear = linear * unit
    matrix = np.concatenate([linear, (middle - linear @ np.full(2, (HALF_PX - 1) / 2))[:, None]], 1)
    for f, frame in enumerate(frames):
        picture = cv2.warpAffine(
            frame,
            matrix,
            (HALF_PX, HALF_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if augment is not None:
            picture = augment.coloured(picture, rng)
        out[:, f] = picture[..., ::-1].transpose(2, 0, 1)
    return out


def embed_clip(network: nn.Module, arrays: Arrays, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Sound and face embeddings (N, 1024) of length 1 of all windows of a clip."""
    return embed_faces(network, lip_frames(arrays.frames(i), None), arrays, i)


def embed_faces(network: nn.Module, lips: np.ndarray, arrays: Arrays, voice: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for pictures (3, T, 112, 112) under the sound of clip `voice`."""
    device = next(network.parameters()).device
    count, mfcc = lips.shape[1] - 4, arrays.mfcc(voice)
    sound = np.stack([mfcc_window(mfcc, t + arrays.clips[voice].offset) for t in range(count)])[:, None]
    faces = []
    with torch.no_grad(), networks.autocast(device):
        for k in range(0, count, 16):
            part = np.stack([lips[:, t : t + 5] for t in range(k, min(k + 16, count))])
            faces.append(lip_embedding(network, torch.from_numpy(part).to(device)).float())
        audio = network.audio(torch.from_numpy(sound).to(device)).float()
    return functional.normalize(audio).cpu().numpy(), functional.normalize(torch.cat(faces)).cpu().numpy()

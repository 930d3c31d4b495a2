"""Generated mouths measured: the same voice against the truth, a foreign voice against an expert or evaluator."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch import nn

from lipsync.blending import crop_mask, mouth_mask, paste
from lipsync.faces.landmarks import CORNERS, lip_gap
from lipsync.faces.references import choose_reference, reference_cost, role_costs
from lipsync.geometry import CropRule, box_alignment, crop_face, top_half
from lipsync.models.base import LipSyncModel
from lipsync.models.wav2lip import from_network, to_network

from . import networks
from .data.arrays import SILENCE, Arrays, column, feature_window, mel_window, no_augmentation, view_region
from .data.sampling import BOX_PX
from .metrics import MOST, offset_curve, sync_accuracy

LOWER = 48


def crops(arrays: Arrays, i: int) -> np.ndarray:
    """(T, 96, 96, 3) uint8 RGB: a clip as the generator sees it."""
    augment = no_augmentation()
    return np.stack([augment(frame) for frame in arrays.frames(i)])


def mels_of(arrays: Arrays, i: int, frames: int, mel_start: int, gated: bool = True) -> np.ndarray:
    """(frames, 80, 16) float32: what `frames` frames hear of clip i's sound, silence where it has ended."""
    mel, clip = arrays.mel(i, gated), arrays.clips[i]
    return np.stack([mel_window(mel, column(clip, t + mel_start)) for t in range(frames)])


def references_of(
    arrays: Arrays, i: int, faces: np.ndarray, network: nn.Module | None = None, away: int = 4
) -> np.ndarray:
    """References (T, 96, 96, 3 R) of a clip's first T frames, as a network (None: of one reference) is shown them."""
    if getattr(network, "references", 1) == 1:
        return faces[resting(arrays, i, faces, away)]
    uppers, at = np.stack([top_half(f) for f in faces]), np.arange(len(faces))
    gaps, widths = lip_gaps(arrays, i)[: len(faces)], lip_widths(arrays, i)[: len(faces)]
    shown, frames, points, augment = [], arrays.frames(i), arrays.landmarks(i), no_augmentation()
    for t in at:
        costs = role_costs(np.abs(uppers - uppers[t]).mean((1, 2, 3)), gaps, widths)
        picked = np.where(np.abs(at - t) < away, np.inf, costs).argmin(1)
        shown.append(np.concatenate([augment.onto(points[t], points[k])(frames[k]) for k in picked], axis=2))
    return np.stack(shown)


def resting(arrays: Arrays, i: int, faces: np.ndarray, away: int = 4) -> np.ndarray:
    """(T,) for each of the first T frames another one of them as reference, by the engine's rule: the one in use is
    kept until another is clearly better. Never one under `away` frames from it, so that no frame is shown itself."""
    uppers, gaps = np.stack([top_half(f) for f in faces]), lip_gaps(arrays, i)[: len(faces)]
    at, now, picked = np.arange(len(faces)), 0, []
    for t in at:
        unfit = np.where(np.abs(at - t) < away, np.inf, reference_cost(uppers, uppers[t], gaps))
        now = choose_reference(unfit, now)
        picked.append(now)
    return np.array(picked)


def lip_widths(arrays: Arrays, i: int) -> np.ndarray:
    """(T,) width of the mouth in box sides."""
    corners = arrays.landmarks(i)[:, CORNERS]
    return np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1) / BOX_PX


def lip_gaps(arrays: Arrays, i: int) -> np.ndarray:
    """(T,) height of the open mouth in box sides."""
    return lip_gap(arrays.landmarks(i)) / BOX_PX


def generate(
    network: nn.Module, faces: np.ndarray, reference: np.ndarray, mels: np.ndarray, batch: int = 32
) -> np.ndarray:
    """New faces (T, 96, 96, 3) uint8 RGB from crops (T, ...), references (96, 96, 3 R) or (T, ...), and (T, 80, 16)."""
    device = next(network.parameters()).device
    if reference.shape[-1] == 3:  # one for all that the network sees
        reference = np.concatenate([reference] * getattr(network, "references", 1), axis=-1)
    references = np.broadcast_to(reference, (*faces.shape[:3], reference.shape[-1]))
    made = []
    for k in range(0, len(faces), batch):
        face = torch.from_numpy(to_network(faces[k : k + batch], references[k : k + batch])).to(device)
        mel = torch.from_numpy(mels[k : k + batch, None]).to(device)
        with torch.no_grad(), networks.autocast(device):
            made.append(network(mel, face.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return from_network(np.concatenate(made))


def model_alignments(model: LipSyncModel, arrays: Arrays, i: int) -> np.ndarray:
    """(T, 2, 3): where a model's crop lies in each stored frame of clip i."""
    if isinstance(model.rule, CropRule):
        place = box_alignment(*view_region(model.rule))
        return np.broadcast_to(place, (arrays.clips[i].frames, 2, 3))
    return np.stack([model.rule.alignment(None, points) for points in arrays.landmarks(i)])


def model_windows(model: LipSyncModel, arrays: Arrays, i: int, frames: int) -> np.ndarray:
    """(frames, C, width): what a model sees of clip i's sound."""
    own, clip = model.audio, arrays.clips[i]
    rows = arrays.feature(i, own.feature)
    return np.stack(
        [
            feature_window(rows, own.feature, clip, t + own.start_frames, own.width, own.start_columns)
            for t in range(frames)
        ]
    )


def model_references(model: LipSyncModel, arrays: Arrays, i: int, crops: np.ndarray) -> np.ndarray:
    """(T, S, S, 3 R): the references of a clip's first T crops, by the roles of the model."""
    if set(model.roles) == {"still"}:
        closed = lip_gaps(arrays, i)[: len(crops)].argsort()
        picked = np.resize(closed[: 2 * len(model.roles) : 2], len(model.roles))
        return np.broadcast_to(np.concatenate(crops[picked], axis=2), (*crops.shape[:3], 3 * len(model.roles)))
    return crops[resting(arrays, i, crops)]


def pasted(model: LipSyncModel, arrays: Arrays, i: int, made: np.ndarray) -> np.ndarray:
    """Made crops (T, S, S, 3) back in the stored frames (T, 160, 160, 3) of clip i, as the engine puts them."""
    frames, places = arrays.frames(i)[: len(made)].copy(), model_alignments(model, arrays, i)
    for frame, picture, place, landmarks in zip(frames, made, places, arrays.landmarks(i), strict=False):
        mask = crop_mask(len(picture)) if model.blend == "replace" else mouth_mask(landmarks, place, 0.04, len(picture))
        paste(frame, place, picture, mask)
    return frames


def model_figures(
    model: LipSyncModel, expert: nn.Module | None, arrays: Arrays, clips: Iterable[int]
) -> dict[str, float]:
    """Means over clips: likeness to the truth under the own voice, and the sync expert's answers under a foreign one,
    both in the stored frames, as a viewer sees them."""
    rows, augment = [], no_augmentation()
    for i in clips:
        places = model_alignments(model, arrays, i)
        seen = np.stack([crop_face(f, a, model.size_px) for f, a in zip(arrays.frames(i), places, strict=True)])
        references = model_references(model, arrays, i, seen)
        truth = np.stack([augment(f) for f in arrays.frames(i)])
        made = model.generate(seen, references, model_windows(model, arrays, i, len(seen)))
        own = np.stack([augment(f) for f in pasted(model, arrays, i, made)])
        ratio = sharpness(own) / sharpness(truth)
        row = {"psnr": psnr(truth, own), "ssim": ssim(truth, own), "sharpness_ratio": ratio}
        if expert is not None:
            voice = foreign(arrays, i)
            length = min(len(seen), arrays.clips[voice].frames)
            windows = model_windows(model, arrays, voice, length)
            made = model.generate(seen[:length], references[:length], windows)
            faces = np.stack([augment(f) for f in pasted(model, arrays, i, made)])
            audio, face = _embed(expert, faces, mels_of(arrays, voice, length - 4, 0, gated=False))
            row["sync_accuracy"], _ = sync_accuracy(audio, face)
            row["within_1"] = float(abs(int(offset_curve(audio, face).argmax()) - MOST) <= 1)
        rows.append(row)
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


def psnr(reference: np.ndarray, estimated: np.ndarray) -> float:
    """Peak signal to noise of the lower halves of (T, 96, 96, 3) uint8, dB."""
    error = np.mean((reference[:, LOWER:].astype(np.float32) - estimated[:, LOWER:].astype(np.float32)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def ssim(reference: np.ndarray, estimated: np.ndarray) -> float:
    """Mean SSIM of the lower halves, grey, Gaussian window of sigma 1.5 (Wang et al. 2004)."""
    a, b = (
        np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[LOWER:] for f in x]).astype(np.float32)
        for x in (reference, estimated)
    )

    def blur(x: np.ndarray) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(f, (11, 11), 1.5) for f in x])

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = 6.5025, 58.5225
    return float(
        (((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))[:, 5:-5, 5:-5].mean()
    )


def sharpness(faces: np.ndarray) -> float:
    """Mean variance of the Laplacian of the lower halves, grey."""
    lower = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[LOWER:].astype(np.float32) for f in faces]
    return float(np.mean([cv2.Laplacian(f, cv2.CV_32F).var() for f in lower]))


def movement(faces: np.ndarray) -> float:
    """Mean absolute change from frame to frame of the middle of the lower half (the mouth), grey levels."""
    mouth = faces[:, 56:88, 24:72].astype(np.float32).mean(3)
    return float(np.abs(np.diff(mouth, axis=0)).mean())


def movements(network: nn.Module, faces: np.ndarray, closed: int, mels: np.ndarray) -> dict[str, float]:
    """`movement` under speech and under silence, with one reference throughout (frame `closed`): another picture of the
    person moves the pixels too, but not the mouth."""
    spoken, silent = (generate(network, faces, faces[closed], m) for m in (mels, np.full_like(mels, SILENCE)))
    return {"motion_speech": movement(spoken), "motion_silence": movement(silent)}


def lower_windows(faces: np.ndarray, frames: int = 5) -> np.ndarray:
    """(T, 96, 96, 3) uint8 RGB -> (T - 4, 3 frames, 48, 96) float32 BGR 0..1."""
    lower = faces[:, LOWER:, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    return np.stack([lower[t : t + frames].reshape(-1, 48, 96) for t in range(len(faces) - 4)])


def foreign(arrays: Arrays, i: int) -> int:
    """The voice that clip i is given: another speaker's clip, else another clip; its own where it is alone."""
    others = [k for k in range(len(arrays.clips)) if arrays.clips[k].speaker != arrays.clips[i].speaker]
    others = others or [k for k in range(len(arrays.clips)) if k != i] or [i]
    return others[(i * 7919) % len(others)]


def generated_figures(
    network: nn.Module, expert: nn.Module | None, arrays: Arrays, clips: Iterable[int]
) -> dict[str, float]:
    """Self-reconstruction (PSNR, SSIM, sharpness of the lower half) and, with an expert, sync under a foreign voice."""
    rows, mel_start = [], network.mel_start
    for i in clips:
        faces = crops(arrays, i)
        references = references_of(arrays, i, faces, network)
        mels = mels_of(arrays, i, len(faces), mel_start)
        made = generate(network, faces, references, mels)
        ratio = sharpness(made) / sharpness(faces)
        row = {"psnr": psnr(faces, made), "ssim": ssim(faces, made), "sharpness_ratio": ratio}
        row |= movements(network, faces, int(lip_gaps(arrays, i).argmin()), mels)
        if expert is not None:
            voice = foreign(arrays, i)
            length = min(len(faces), arrays.clips[voice].frames)
            made = generate(network, faces[:length], references[:length], mels_of(arrays, voice, length, mel_start))
            audio, face = _embed(expert, made, mels_of(arrays, voice, length - 4, 0, gated=False))
            row["sync_accuracy"], _ = sync_accuracy(audio, face)
            row["within_1"] = float(abs(int(offset_curve(audio, face).argmax()) - MOST) <= 1)
            audio, face = _embed(expert, faces[:length], mels_of(arrays, voice, length - 4, 0, gated=False))
            row["untouched_within_1"] = float(abs(int(offset_curve(audio, face).argmax()) - MOST) <= 1)
        rows.append(row)
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


def _embed(expert: nn.Module, faces: np.ndarray, mels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    device = next(expert.parameters()).device
    with torch.no_grad():
        audio = expert.audio(torch.from_numpy(mels[:, None]).to(device)).float().cpu().numpy()
        face = expert.face(torch.from_numpy(lower_windows(faces, expert.window)).to(device)).float().cpu().numpy()
    return audio, face

"""Sharpness, steadiness and time of made mouths with and without detail, on real clips under a foreign voice.

    python -m bench.detail VOICE CLIP... [--seconds 4] [--model NAME] [--sheet FOLDER]

sharpness  variance of the Laplacian of the mouth in the pasted frame against the clip's own, at native size; median
motion     mean change of the mouth from frame to frame, grey levels, and the clip's own under its own words
ms         processor time a face that detail adds, on one thread
sheet      FOLDER/CLIP.png: eight frames in columns; the clip, without detail, with detail in rows
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from lipsync import render
from lipsync.blending import match_colour, paste
from lipsync.faces.selection import choose
from lipsync.faces.tracking import find_faces
from lipsync.geometry import crop_face
from lipsync.media.reader import FrameReader, probe, read_waveform
from lipsync.models.base import LipSyncModel, open_model
from lipsync.options import Options

COLUMNS, SIZE_PX = 8, 280


def measure(clip: Path, mel: np.ndarray, model: LipSyncModel, seconds: float, sheet: Path | None) -> dict[str, float]:
    """The figures of the largest face of one clip."""
    info = probe(clip)
    with FrameReader(info) as reader:
        frames = [f.copy() for f in islice(reader, int(seconds * info.fps))]
    faces = find_faces(frames, info.fps, keep_exemplars=True)
    track = choose(faces, "largest", None, info.fps)[0]
    speaker = render.Speaker(track, model, mel, info.fps, Options())
    at = [i for i in range(track.start, track.stop) if track.has(i)]
    mouths = [speaker.mouth(frames[i], 0, i, i) for i in at]
    made_all = model.generate(*(np.stack([getattr(m, p) for m in mouths]) for p in ("crop", "reference", "window")))
    rows, strip, before = [], [], None
    chosen = set(np.linspace(2, len(at) - 1, COLUMNS).astype(int).tolist())
    for n, (i, mouth, made) in enumerate(zip(at, mouths, made_all, strict=True)):
        made = match_colour(made, mouth.crop, mouth.mask)
        plain, detailed = frames[i].copy(), frames[i].copy()
        began = time.thread_time()
        paste(plain, mouth.alignment, made, mouth.mask)
        between = time.thread_time()
        detail = None
        if mouth.detail is not None:
            made, detail = mouth.detail(made, mouth.crop, mouth.mask, detailed, mouth.box, i)
        paste(detailed, mouth.alignment, made, mouth.mask, detail)
        extra = time.thread_time() - between - (between - began)
        size = max(int(mouth.alignment[0, 0]), 96)
        crops = [crop_face(f, mouth.alignment, size) for f in (frames[i], plain, detailed)]
        greys = [cv2.cvtColor(c, cv2.COLOR_RGB2GRAY) for c in crops]
        inside = cv2.resize(mouth.mask, (size, size)) > 0.6
        sharp = [max(float(cv2.Laplacian(g, cv2.CV_64F)[inside].var()), 1e-6) for g in greys]
        small = np.stack([cv2.resize(g, (96, 96), interpolation=cv2.INTER_AREA)[60:88, 28:68] for g in greys])
        moved = np.full(3, np.nan) if before is None else np.abs(small.astype(float) - before).mean((1, 2))
        before = small.astype(float)
        rows.append([sharp[1] / sharp[0], sharp[2] / sharp[0], *moved, 1000 * extra])
        if n in chosen:
            lower = [c[size * 45 // 100 :, size // 10 : size * 9 // 10] for c in crops]
            strip.append(np.concatenate([cv2.resize(c, (SIZE_PX, SIZE_PX * 11 // 16)) for c in lower]))
    if sheet is not None:
        sheet.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(sheet / f"{clip.stem}.png"), np.concatenate(strip, axis=1)[..., ::-1])
    table = np.array(rows)
    names = ("sharpness off", "sharpness on", "motion own", "motion off", "motion on", "ms")
    figures = [*np.median(table[:, :2], axis=0), *np.nanmean(table[:, 2:], axis=0)]
    return {"px": track.size_px, "frames": len(at)} | dict(zip(names, map(float, figures), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.detail", description=__doc__)
    parser.add_argument("voice", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--model", default=Options().model)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    model = open_model(args.model)
    mel = model.audio_features(read_waveform(args.voice))
    found = []
    for clip in args.clips:
        found.append(measure(clip, mel, model, args.seconds, args.sheet))
        print(clip.stem, " ".join(f"{k} {v:.2f}" for k, v in found[-1].items()), flush=True)
    print("median", " ".join(f"{k} {np.median([f[k] for f in found]):.2f}" for k in found[0]))


if __name__ == "__main__":
    main()

"""What lies before faces, drawn and found: python -m bench.occlusion CLIP… [--frames 50] [--sheet OUT.png]

Each clip's main face is asked as it is, and with a bar, a caption, fingers, a microphone and a mask drawn over every
frame at one place of the picture. Said are, of the mouth's mask: how much of the thing is kept as it was, and how much
of the bare rest would be kept too, which the new mouth then lacks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from lipsync.faces.selection import main_track
from lipsync.faces.tracking import find_faces
from lipsync.geometry import crop_face
from lipsync.media.reader import Frame, FrameReader, probe
from lipsync.occlusion import SIZE_PX, Covers, OcclusionFinder, cut, hides

Drawing = Callable[[Frame, int, int, float, Frame], None]  # onto a frame: mouth x, y, box side, the bare frame


def bar(frame: Frame, x: int, y: int, side: float, _: Frame) -> None:
    low, high = (int(x - 0.05 * side), int(y - 0.1 * side)), (int(x + 0.22 * side), int(y + 0.9 * side))
    cv2.rectangle(frame, low, high, (0, 0, 0), -1)


def caption(frame: Frame, x: int, y: int, side: float, _: Frame) -> None:
    at, thick = (int(x - 0.8 * side), int(y + 0.2 * side)), max(int(side / 70), 1)
    cv2.putText(frame, "BREAKING NEWS", at, cv2.FONT_HERSHEY_DUPLEX, side / 180, (255, 255, 255), thick, cv2.LINE_AA)


def fingers(frame: Frame, x: int, y: int, side: float, bare: Frame) -> None:
    brow = bare[int(y - 0.68 * side) : int(y - 0.58 * side), int(x - 0.1 * side) : int(x + 0.1 * side)]
    for k in range(3):
        colour = [int(v) for v in brow.mean((0, 1)) * (0.82 + 0.06 * k)]
        tip = int(x + (0.13 * k - 0.1) * side), int(y + (0.03 * k - 0.02) * side)
        cv2.line(frame, tip, (tip[0] - int(0.2 * side), int(y + side)), colour, int(0.12 * side), cv2.LINE_AA)


def microphone(frame: Frame, x: int, y: int, side: float, _: Frame) -> None:
    low = int(x + 0.3 * side), int(y + 1.2 * side)
    cv2.line(frame, (x, int(y + 0.25 * side)), low, (40, 40, 45), int(0.1 * side), cv2.LINE_AA)
    cv2.circle(frame, (x, int(y + 0.18 * side)), int(0.16 * side), (55, 55, 60), -1, cv2.LINE_AA)


def mask(frame: Frame, x: int, y: int, side: float, _: Frame) -> None:
    corners = [(-0.48, -0.28), (0, -0.36), (0.48, -0.28), (0.4, 0.27), (0, 0.42), (-0.4, 0.27)]
    points = np.array([(x + a * side, y + b * side) for a, b in corners]).astype(np.int32)
    cv2.fillPoly(frame, [points], (150, 185, 205), cv2.LINE_AA)


THINGS: dict[str, Drawing] = {d.__name__: d for d in (bar, caption, fingers, microphone, mask)}


def recoded(frame: Frame) -> Frame:
    """As a camera's codec leaves it."""
    _, coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def asked(frames: list[Frame], fps, finder: OcclusionFinder, drawn: np.ndarray) -> tuple[np.ndarray, Frame | None]:
    """(N, 3) of the frames with a face: share of the thing kept and of the rest kept, of the mouth's mask (NaN where it
    is nowhere), and whether the mouth is hidden; and a picture of the middle one, what is kept in red."""
    tracks = find_faces(frames, fps).tracks
    if not tracks:
        return np.zeros((0, 3)), None
    track = main_track(tracks)
    at = [i for i in range(track.start, track.stop) if track.has(i)]
    where = ((i, track.boxes[i - track.start], track.landmarks[i - track.start]) for i in at)
    faces, places = zip(*(cut(frames[i], box, landmarks, frame=i) for i, box, landmarks in where), strict=True)
    things = [crop_face(drawn, place.alignment, SIZE_PX) > 127 for place in places]
    rows, pictures = [], []
    for face, place, thing, found in zip(faces, places, things, Covers(finder)(np.stack(faces), places), strict=True):
        kept = np.zeros_like(place.mask) if found is None else found
        over, bare = place.mask * thing, place.mask * ~thing
        shares = [float((m * kept).sum() / m.sum()) if m.sum() > 20 else np.nan for m in (over, bare)]
        rows.append([*shares, float(found is not None and hides(found))])
        red = face.copy()
        red[..., 0] = np.maximum(red[..., 0], (255 * kept).astype(np.uint8))
        pictures.append(np.concatenate([face, red]))
    return np.array(rows), pictures[len(pictures) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=50, help="of each clip (%(default)s)")
    parser.add_argument("--sheet", type=Path, help="a picture of each clip and thing, what is kept in red")
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    args = parser.parse_args()
    finder, rows = OcclusionFinder(), {name: [] for name in ("nothing", *THINGS)}
    sheet = []
    for clip in args.clips:
        info = probe(clip)
        with FrameReader(info, [(0, min(args.frames, info.frames))]) as reader:
            frames = list(reader)
        tracks = find_faces(frames, info.fps).tracks
        if not tracks:
            print(f"{clip.name}: no face")
            continue
        x0, y0, x1, _ = main_track(tracks).boxes[0]
        place = round((x0 + x1) / 2), round(y0 + 0.78 * (x1 - x0)), float(x1 - x0)
        line = []
        for name in rows:
            shown, drawn = frames, np.zeros(frames[0].shape[:2], np.uint8)
            if name != "nothing":
                shown = [frame.copy() for frame in frames]
                for frame, bare in zip(shown, frames, strict=True):
                    THINGS[name](frame, *place, bare)
                drawn = (np.abs(shown[0].astype(int) - frames[0]).max(2) > 8).astype(np.uint8) * 255
                if name == "bar":  # black on black is no less there
                    THINGS[name](white := np.full_like(frames[0], 255), *place, white)
                    drawn = 255 - white[..., 0]
                shown = [recoded(frame) for frame in shown]
            found, picture = asked(shown, info.fps, finder, drawn)
            rows[name].append(found)
            line.append(np.zeros((2 * SIZE_PX, SIZE_PX, 3), np.uint8) if picture is None else picture)
        sheet.append(np.concatenate(line, axis=1))
        alarms = rows["nothing"][-1]
        if len(alarms) and (alarms[:, 1] > 0).any():
            print(f"{clip.name}: kept where nothing is, {(alarms[:, 1] > 0).sum()} of {len(alarms)} frames")
    print(f"{'drawn':12}{'clips':>6}{'frames':>8}{'kept of it':>12}{'of the rest':>13}{'hidden':>8}")
    for name, found in rows.items():
        every = np.concatenate(found)
        with np.errstate(all="ignore"):
            thing, rest = (np.nanmean(every[:, k]) if np.isfinite(every[:, k]).any() else np.nan for k in (0, 1))
        clips = sum(len(one) > 0 for one in found)
        print(f"{name:12}{clips:6}{len(every):8}{thing:12.2f}{rest:13.3f}{every[:, 2].mean():8.2f}")
    if args.sheet:
        cv2.imwrite(str(args.sheet), np.concatenate(sheet)[..., ::-1])


if __name__ == "__main__":
    main()

"""Which faces are to speak: the largest of each shot, all, the one under a point, or given track numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from .errors import InputError
from .faces import FaceMap, Track


def choose(faces: FaceMap, face: str, voiced: Sequence[int] | None, fps: Fraction) -> list[Track]:
    """Pick the tracks that a voice will move.

    face    largest | all | "X,Y@SECOND" (pixels; the track under the point and what follows it in its shot) | "0,2"
    voiced  track numbers that have a voice each; they replace `face`. None: one voice for all chosen
    Raises InputError for a number or point where no face is.
    """
    numbers = {t.number: t for t in faces.tracks}
    if voiced is not None:
        return _by_number(numbers, voiced)
    if face == "all":
        return list(faces.tracks)
    if face == "largest":
        return _largest(faces)
    if re.fullmatch(r"\d+(,\d+)*", face) and "@" not in face:
        return _by_number(numbers, [int(n) for n in face.split(",")])
    match = re.fullmatch(r"([\d.]+),([\d.]+)@([\d.]+)", face)
    if match is None:
        raise InputError(
            f'A face is chosen by largest, all, numbers like 0,2, or a point like 320,180@1.5; not by "{face}".'
        )
    return _at_point(faces, float(match[1]), float(match[2]), round(float(match[3]) * fps))


def _by_number(numbers: dict[int, Track], wanted: Sequence[int]) -> list[Track]:
    missing = [n for n in wanted if n not in numbers]
    if missing:
        raise InputError(
            f"There is no face number {missing[0]} in this video: it has {len(numbers)} face(s), "
            f"numbered from 0 to {max(numbers)} (a preview shows them)."
        )
    return [numbers[n] for n in wanted]


def _largest(faces: FaceMap) -> list[Track]:
    """In each shot the track with the most face in it (size times frames seen), and those that never meet it."""
    chosen: list[Track] = []
    for shot in range(len(faces.shots)):
        inside = [t for t in faces.tracks if t.shot == shot]
        for track in sorted(inside, key=lambda t: -t.size_px * t.seen.sum()):
            if all(track.stop <= c.start or track.start >= c.stop for c in chosen):
                chosen.append(track)
    return sorted(chosen, key=lambda t: t.number)


def _at_point(faces: FaceMap, x: float, y: float, frame: int) -> list[Track]:
    here = [t for t in faces.tracks if t.has(frame)]

    def distance(track: Track) -> float:
        x0, y0, x1, y1 = track.boxes[frame - track.start]
        return max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2)) / max((y1 - y0) / 2, 1.0)

    under = [t for t in here if distance(t) <= 1.3]
    if not under:
        seen = ", ".join(str(t.number) for t in here) or "none"
        raise InputError(f"There is no face at {x:g},{y:g} in frame {frame} (faces seen in it: {seen}).")
    chosen = [min(under, key=distance)]
    # The same face, lost for a while and found again near the place where it was lost.
    for track in faces.tracks:
        last = chosen[-1]
        gap = abs(track.boxes[0] - last.boxes[-1]).max()
        if track.shot == last.shot and track.start >= last.stop and gap < last.size_px:
            chosen.append(track)
    return chosen

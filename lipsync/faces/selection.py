"""Which faces are to speak: the largest of each shot, all, the one under a point, or given track numbers.

A person has a new number in each shot, and after each loss of more than a second (faces.FORGET). Who was chosen by a
point or a number is followed over the losses of that shot: before and after it, the tracks that begin or end near the
place where it was lost belong to it. Over a cut nobody is followed: nothing here knows a face again.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..errors import InputError
from ..messages import Message
from ..options import FACE
from .tracking import FaceMap, Track


def choose(faces: FaceMap, face: str, voiced: Sequence[int] | None, fps: Fraction) -> list[Track]:
    """Pick the tracks that a voice will move.

    face    largest | all | "X,Y@SECOND" (pixels; the track under the point) | "0,2"; see Options.face
    voiced  track numbers that have a voice each; they replace `face`. None: one voice for all chosen
    Raises InputError for a number or point where no face is.
    """
    if voiced is not None:
        return _by_number(faces, voiced)
    if face == "all":
        return list(faces.tracks)
    if face == "largest":
        return _largest(faces)
    match = FACE.fullmatch(face)
    if match is None:
        raise InputError(
            "A face is chosen by largest, all, numbers like 0,2, or a point like 320,180@1.5; not by {face!r}.",
            face=face,
        )
    if match["numbers"]:
        return _by_number(faces, [int(n) for n in face.split(",")])
    return _at_point(faces, float(match["x"]), float(match["y"]), round(float(match["second"]) * fps))


def main_track(tracks: Sequence[Track]) -> Track:
    """The main face of some tracks (at least one), everywhere in this project: the largest extent, of equal ones the
    first."""
    return max(tracks, key=lambda t: (t.extent, -t.start, -t.number))


def speakers(faces: FaceMap, wanted: Sequence[int]) -> dict[int, int]:
    """Who lends each track its voice: the number of a track -> the one of `wanted` that it is taken to go on from.

    Raises InputError for a number that no face has.
    """
    numbers = {t.number: t for t in faces.tracks}
    missing = [n for n in wanted if n not in numbers]
    if missing:
        raise InputError(
            "There is no face number {missing} in this video: it has {count} face(s), numbered from 0 to {last} "
            "(a preview shows them).",
            missing=missing[0],
            count=len(numbers),
            last=max(numbers),
        )
    lent = {n: n for n in wanted}
    for number in dict.fromkeys(wanted):
        free = [t for t in faces.tracks if t.number not in lent]
        lent |= {t.number: number for t in _lost_and_found(numbers[number], free)}
    return lent


def _by_number(faces: FaceMap, wanted: Sequence[int]) -> list[Track]:
    numbers = {t.number: t for t in faces.tracks}
    return [numbers[n] for n in speakers(faces, wanted)]


def _largest(faces: FaceMap) -> list[Track]:
    """In each shot its main face, and those that never meet it."""
    chosen: list[Track] = []
    for shot in range(len(faces.shots)):
        inside = [t for t in faces.tracks if t.shot == shot]
        for track in sorted(inside, key=lambda t: -t.extent):
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
        raise InputError(
            "There is no face at {x:g},{y:g} in frame {frame} (faces seen in it: {seen}).",
            x=x,
            y=y,
            frame=frame,
            seen=", ".join(str(t.number) for t in here) or Message("none"),
        )
    return _by_number(faces, [min(under, key=distance).number])


def _lost_and_found(track: Track, others: Sequence[Track]) -> list[Track]:
    """Those of `others` that show the face of `track` before it was first found and after it was last lost."""
    found: list[Track] = []
    for forward in (True, False):
        last: Track | None = track
        while last is not None:
            last = _next(last, others, forward)
            found += [last] if last is not None else []
    return found


def _next(last: Track, others: Sequence[Track], forward: bool) -> Track | None:
    """The soonest track after `last` (or before it) near the place of its loss; of several at once the nearest."""

    def wait(track: Track) -> int:
        return track.start - last.stop if forward else last.start - track.stop

    def gap(track: Track) -> float:
        ends = (track.boxes[0], last.boxes[-1]) if forward else (track.boxes[-1], last.boxes[0])
        return float(np.abs(ends[0] - ends[1]).max())

    near = [t for t in others if t.shot == last.shot and wait(t) >= 0 and gap(t) < last.size_px]
    if not near:
        return None
    soonest = min(near, key=wait)
    return min((t for t in near if t.start < soonest.stop and soonest.start < t.stop), key=gap)

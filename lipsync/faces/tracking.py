"""Find the faces of a video: shots, tracks, one steady box and jaw line per frame.

One forward pass over the frames; what is kept of a track is small, its reference frames are bounded in all (`PATCHES`).
The detector looks every `DETECT_EVERY` frames and at each cut; in between a landmark model follows each face found, at
every second frame. Its points give the box: a fixed multiple of distances between eyes and nose (`box_from_points`),
which neither trembles as detector boxes do (docs/log.md) nor grows when the jaw drops, so that the old mouth cannot
leak through it. A frame counts as seen only where the landmark model found the face; gaps of up to `BRIDGE` frames are
interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .. import detail
from ..errors import InputError
from ..geometry import box_alignment, crop_face, to_crop
from ..media.reader import Frame
from .base import LandmarkModel, height, shrink
from .detectors import DETECTORS, LANDMARKS, MediapipeDetector, ShotFinder
from .landmarks import CORNERS, EYES, LANDMARK_IDS, LEFT_EYE, NOSE, NOSE_TIP, RIGHT_EYE, lip_gap

FOLLOW_EVERY = 2  # frames from one look of the mesh to the next; boxes and points are interpolated
DETECT_EVERY = 8  # frames between two looks for new faces
BRIDGE = 8  # frames without the face that are filled by interpolation
FORGET = 25  # frames after which an unseen face ends its track
MIN_FRAMES = 3  # tracks that the mesh saw in fewer frames are taken for mistakes of the detector
SMALL_PX = MediapipeDetector.longest_px
PATCH_PX = 192  # side of a reference frame, 1.7 boxes wide
PATCH_SCALE = 1.7
REFERENCE_FRAMES = 16  # remembered pictures a track, one for each
PATCHES = 2048  # reference frames kept of all ended tracks together, 220 MB; only films with hundreds of cuts have more
POSE_STEP = 0.05  # box heights that the nose moves against the eyes, and
LIGHT_STEP = 24  # grey levels that the face brightens
# The face box: its side in eyes to nose and eye to eye; its centre, from the eyes, in parts of eyes to nose.
BOX = (1.575, 1.046, 0.02, 0.69)


@dataclass(frozen=True)
class ReferenceFrame:
    """One remembered picture of a tracked face, from which reference crops are cut.

    patch (192, 192, 3) uint8 RGB; box x0 y0 x1 y1 in pixels of the patch; mouth_opening: lip gap in box heights;
    pose: nose tip against the eyes, in box heights, right and down; landmarks (K, 2) float32, pixels of the patch.
    """

    frame: int
    patch: Frame
    box: np.ndarray
    mouth_opening: float
    pose: tuple[float, float]
    landmarks: np.ndarray


@dataclass(frozen=True)
class Track:
    """One face through one shot.

    number    counts from 0 in order of appearance, the larger first of those that appear together
    start     first frame; frames start .. start + T - 1
    boxes     (T, 4) float32, x0 y0 x1 y1 in pixels, square, smoothed
    landmarks (T, 29, 2) float32, pixels: jaw line, nose base and tip, mouth corners, inner lips, eyes (LANDMARK_IDS)
    seen      (T,) bool, False where the face was lost for longer than BRIDGE frames
    reference_frames  remembered pictures, one for each pose and light, the mouth as closed as it was seen in it
    bridged   (T,) bool, True where the face was not found and is interpolated over a gap of up to BRIDGE
    exemplars frames of the face, for references and the detail of made mouths; none where not asked for
    """

    number: int
    shot: int
    start: int
    boxes: np.ndarray
    landmarks: np.ndarray
    seen: np.ndarray
    reference_frames: tuple[ReferenceFrame, ...] = ()
    bridged: np.ndarray | None = None
    exemplars: tuple[detail.Exemplar, ...] = ()

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.start + len(self.boxes)

    @property
    def size_px(self) -> float:
        """Mean height of the face box, pixels."""
        return float((self.boxes[:, 3] - self.boxes[:, 1]).mean())

    @property
    def extent(self) -> float:
        """How much picture it has over time: area of its box times frames in which it is seen. The main face of a video
        is the track with the largest extent (selection.main_track)."""
        return self.size_px**2 * float(self.seen.sum())

    def has(self, frame: int) -> bool:
        """Is the face seen (or bridged) in this frame?"""
        return self.start <= frame < self.stop and bool(self.seen[frame - self.start])


@dataclass(frozen=True)
class FaceMap:
    """Everything known about the faces of a video: frames, shots as (first, stop), tracks; sentences on damage."""

    frames: int
    fps: Fraction
    shots: tuple[tuple[int, int], ...]
    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = ()


def box_from_points(points: np.ndarray) -> np.ndarray:
    """The steady face box of a mesh: (468, 2) pixels -> (4,) float32 x0 y0 x1 y1, a square.

    Fitted to the full-range detector's boxes on 813 frames of the training pools (spread 5 % of the side);
    made of points that do not move with speech.
    """
    eyes, nose = points[EYES].mean(0), points[NOSE].mean(0)
    down = nose - eyes
    side = BOX[0] * np.linalg.norm(down) + BOX[1] * np.linalg.norm(points[LEFT_EYE[0]] - points[RIGHT_EYE[0]])
    x, y = eyes[0] + BOX[2] * down[0], eyes[1] + BOX[3] * down[1]
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def _look_once_more(tracks: list[_Open], index: int, frame: Frame | None) -> None:
    """Look at the last frame of a shot, so that it is known and not extrapolated."""
    for track in tracks:
        if frame is not None and track.last < index:
            track.look(index, frame)


def smooth_published(boxes: np.ndarray) -> np.ndarray:
    """The published inference's smoothing: integer boxes (T, 4), each the truncated mean of itself and the next four.

    It works in place, so that near the end, where the window is the last five, means of means are taken; it looks two
    frames ahead on average and shows as a double mouth on fast motion (protocol.md section 3). Of fewer than five: all.
    """
    smooth = boxes.astype(np.int64)
    for i in range(len(smooth)):
        first = max(min(i, len(smooth) - 5), 0)
        smooth[i] = smooth[first : first + 5].mean(0)
    return smooth


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    """Do two boxes show the same face? Centres within half a box and sizes within a factor of two."""
    size = max(height(a), height(b))
    apart = np.abs((a[:2] + a[2:] - b[:2] - b[2:]) / 2).max()
    return bool(apart < 0.5 * size and min(height(a), height(b)) > 0.5 * size)


@dataclass(eq=False)  # one is no other, and arrays have no plain ==
class _Open:
    """A track while the video is being read."""

    start: int
    shot: int
    box: np.ndarray
    landmarks: LandmarkModel
    exemplars: detail.Exemplars | None = None
    hits: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # frame -> box, kept points
    reference_frames: dict[tuple[int, int, int], ReferenceFrame] = field(default_factory=dict)
    last: int = 0

    @property
    def first_box(self) -> np.ndarray:
        return self.hits[min(self.hits)][0]

    def look(self, index: int, frame: Frame) -> None:
        points = self.landmarks.find(frame, self.box)
        if points is None:
            return
        box = box_from_points(points)
        if not _near(box, self.box):  # they went astray
            return
        self.box, self.last = box, index
        kept = points[LANDMARK_IDS]
        self.hits[index] = (box, kept)
        self._remember(index, frame, box, kept, points)

    def _remember(self, index: int, frame: Frame, box: np.ndarray, kept: np.ndarray, points: np.ndarray) -> None:
        side = height(box)
        mouth_opening = float(lip_gap(kept)) / side
        offset = (kept[NOSE_TIP] - points[EYES].mean(0)) / side
        pose = (float(offset[0]), float(offset[1]))
        if self.exemplars is not None:
            width = float(np.linalg.norm(np.diff(kept[CORNERS], axis=0))) / side
            self.exemplars.add(self, detail.take(index, frame, box, kept, mouth_opening, width, pose))
        face = frame[max(int(box[1]), 0) : max(int(box[3]), 1) : 8, max(int(box[0]), 0) : max(int(box[2]), 1) : 8]
        light = float(face.mean()) if face.size else 0.0
        key = (round(pose[0] / POSE_STEP), round(pose[1] / POSE_STEP), round(light / LIGHT_STEP))
        known = self.reference_frames.get(key)
        full = len(self.reference_frames) >= REFERENCE_FRAMES
        if (known is None and full) or (known is not None and known.mouth_opening <= mouth_opening):
            return
        x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side * PATCH_SCALE / 2
        place = box_alignment(x - half, y - half, x + half, y + half)
        patch = crop_face(frame, place, PATCH_PX)
        inset = PATCH_PX / 2 * (1 - 1 / PATCH_SCALE)
        patch_box = np.array([inset, inset, PATCH_PX - inset, PATCH_PX - inset], np.float32)
        local = to_crop(kept, place, PATCH_PX).astype(np.float32)
        self.reference_frames[key] = ReferenceFrame(index, patch, patch_box, mouth_opening, pose, local)

    def finish(self, number: int, smoothing: str) -> Track:
        at = np.array(sorted(self.hits))
        first, stop = int(at[0]), int(at[-1]) + 1
        every = np.arange(first, stop)
        flat = np.stack([np.concatenate([self.hits[i][0], self.hits[i][1].ravel()]) for i in at])
        filled = np.stack([np.interp(every, at, flat[:, c]) for c in range(flat.shape[1])], 1)
        seen, bridged = np.ones(len(every), bool), np.zeros(len(every), bool)
        for a, b in zip(at[:-1], at[1:], strict=True):
            if b - a > BRIDGE + 1:
                seen[a + 1 - first : b - first] = False
            elif b - a > FOLLOW_EVERY:  # a look between them found nothing
                bridged[a + 1 - first : b - first] = True
        smooth = filled.copy()
        for a, b in runs(seen):
            boxes = filled[a:b, :4]
            steady = smoothing == "steady"
            smooth[a:b, :4] = (
                gaussian_filter1d(boxes, 1.5, axis=0, mode="nearest") if steady else smooth_published(boxes)
            )
            smooth[a:b, 4:] = gaussian_filter1d(filled[a:b, 4:], 0.7, axis=0, mode="nearest")
        smooth = smooth.astype(np.float32)
        return Track(
            number,
            self.shot,
            first,
            smooth[:, :4],
            smooth[:, 4:].reshape(-1, len(LANDMARK_IDS), 2),
            seen,
            tuple(self.reference_frames.values()),
            bridged,
            () if self.exemplars is None else self.exemplars.of(self),
        )


def _thin(ended: list[_Open]) -> None:
    """Keep PATCHES reference frames in all: of tracks with more than their share, those with the mouth most closed."""
    share = max(PATCHES // len(ended), 1)
    if sum(len(track.reference_frames) for track in ended) > PATCHES:
        for track in ended:
            most_closed = sorted(track.reference_frames.items(), key=lambda item: item[1].mouth_opening)
            track.reference_frames = dict(most_closed[:share])


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of True in a (T,) bool array, as (first, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def find_faces(
    frames: Iterable[Frame],
    fps: Fraction,
    detector: str = "mediapipe",
    progress: Callable[[int], None] | None = None,
    smoothing: str = "steady",
    keep_exemplars: bool = False,
    landmarks: str = "mediapipe",
) -> FaceMap:
    """Read a video once and return its shots and face tracks.

    frames    (H, W, 3) uint8 RGB, any length
    detector  a name in DETECTORS
    progress  called with the number of frames read; may raise to stop
    smoothing steady (Gaussian, sigma 1.5 frames) or published (`smooth_published`)
    keep_exemplars  keep frames of each track for detail and references too, detail.BYTES at most
    landmarks  a name in LANDMARKS
    """
    if detector not in DETECTORS:
        raise InputError(
            "There is no face detector named {detector!r}: choose one of {choices}.",
            detector=detector,
            choices=", ".join(DETECTORS),
        )
    look = DETECTORS[detector]()
    cuts = ShotFinder(fps)
    exemplars = detail.Exemplars() if keep_exemplars else None
    shots, done, open_tracks, spare = [0], [], [], []
    count, previous = 0, None
    try:
        for index, frame in enumerate(frames):
            cut = cuts.is_cut(index, frame)
            if cut:
                shots.append(index)
                _look_once_more(open_tracks, index - 1, previous)
            for track in [t for t in open_tracks if cut or index - t.last > FORGET]:
                open_tracks.remove(track)
                done.append(track)
                spare.append(track.landmarks)
                _thin(done)
            if cut or index % DETECT_EVERY == 0:
                small = shrink(frame, look.longest_px)
                scale = frame.shape[1] / small.shape[1]
                for hit in look.detect(small):
                    box = hit.box * scale
                    if height(box) < 16 or any(_near(box, t.box) for t in open_tracks):
                        continue
                    points = spare.pop() if spare else LANDMARKS[landmarks]()
                    points.forget()
                    open_tracks.append(_Open(index, len(shots) - 1, box, points, exemplars, last=index))
            for track in open_tracks:
                if (index - track.start) % FOLLOW_EVERY == 0 or track.last < index - FOLLOW_EVERY:
                    track.look(index, frame)
            count, previous = index + 1, frame
            if progress is not None:
                progress(count)
        _look_once_more(open_tracks, count - 1, previous)
    finally:
        look.close()
        for points in [t.landmarks for t in open_tracks] + spare:
            points.close()
    tracks: list[Track] = []
    enough = min(MIN_FRAMES, -(-count // FOLLOW_EVERY))
    kept = [t for t in done + open_tracks if len(t.hits) >= enough]
    # By the first box: the last one depends on how far the video was read, and so would the numbers.
    for ended in sorted(kept, key=lambda t: (t.start, -height(t.first_box), t.first_box[0])):
        tracks.append(ended.finish(len(tracks), smoothing))
    bounds = [*shots, count]
    return FaceMap(count, fps, tuple(zip(bounds[:-1], bounds[1:], strict=True)), tuple(tracks))

"""How far mouths open: the arithmetic, the aim of a speaker, and a whole video made wider."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import lipsync
from lipsync import opening
from lipsync.audio import MEL_RATE
from lipsync.blending import natural_red, widened
from lipsync.errors import Cancelled, InputError
from lipsync.faces.detectors import LANDMARKS
from lipsync.faces.landmarks import INNER_LIPS
from lipsync.faces.tracking import ReferenceFrame, Track, find_faces
from lipsync.geometry import CropRule
from lipsync.media.reader import FrameReader, probe
from lipsync.models.base import AudioWindow
from lipsync.options import Options
from lipsync.progress import Monitor
from lipsync.render import Speaker
from tests.conftest import portrait_frame


def track_with_gaps(gaps: np.ndarray, **more) -> Track:
    """A face of 100 pixels whose lips stand so far apart, in pixels."""
    landmarks = np.zeros((len(gaps), 29, 2), np.float32)
    landmarks[:, INNER_LIPS.start + 1, 1] = gaps
    boxes = np.tile(np.float32([0, 0, 100, 100]), (len(gaps), 1))
    return Track(0, 0, 0, boxes, landmarks, np.ones(len(gaps), bool), **more)


def test_a_gain_stretches_what_sound_changes_and_nothing_else():
    rng = np.random.default_rng(0)
    made, rest = rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    made[1] = rest[1]
    wide = widened(made, rest, np.array([1.0, 1.5, 0.0]))
    assert (wide[0] == made[0]).all() and (wide[1] == made[1]).all() and (wide[2] == rest[2]).all()
    double = widened(np.full((1, 4, 4, 3), 200, np.uint8), np.full((1, 4, 4, 3), 100, np.uint8), np.array([2]))
    assert (double == 255).all()  # 300 is no grey level


def test_the_aim_is_the_speakers_own_range_where_they_speak():
    speaks = track_with_gaps(np.linspace(0, 5, 101))
    assert opening.aim(speaks) == pytest.approx(0.04, rel=0.01)  # 10th to 90th percentile of 0 .. 5 %
    assert opening.aim(track_with_gaps(np.full(50, 1.0))) == 0  # a grin is no speech
    lost = replace(speaks, seen=np.zeros(101, bool))
    assert opening.aim(lost) == 0


class Painter:
    """Stands for a model: a spot where the mouth is, as bright as the sound is loud, times a share."""

    rule, size_px, roles, blend, audio = CropRule(), 96, ("closed",), "mask", AudioWindow("mel", 1)

    def __init__(self, share: float) -> None:
        self.share = share

    def windows(self, features, first, count, fps):
        at = [int(k * MEL_RATE / fps) for k in range(first, first + count)]
        return features[:, at].T[:, :, None]

    def silent_windows(self, count):
        return np.zeros((count, 1, 1), np.float32)

    def generate(self, crops, references, windows):
        made = crops.astype(np.float32)
        made[:, 64:72, 44:52] += self.share * windows[:, :, :, None]
        return made.clip(0, 255).astype(np.uint8)


class Ruler:
    """Stands for the mesh: the lips stand as far apart as the spot is bright."""

    def find(self, picture, box):
        points = np.zeros((468, 2), np.float32)
        side = box[3] - box[1]
        points[14, 1] = side * 0.001 * float(np.ptp(picture))
        return points

    def forget(self):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("share", "gain"), [(1.0, 1.0), (0.62, 1.15), (0.53, 1.3), (0.2, 1.3)])
def test_the_least_gain_that_reaches_the_aim_is_taken(share, gain):
    face = np.full((192, 192, 3), 60, np.uint8)
    (found,) = find_faces([portrait_frame(0, 0)] * 3, Fraction(25)).tracks  # for landmarks of a face
    box = np.float32([48, 48, 144, 144])
    place = np.float32([[96 / (found.boxes[0, 2] - found.boxes[0, 0]), 0, 0], [0, 1, 0]])[0, 0]
    landmarks = (found.landmarks[0] - found.boxes[0, :2]) * place + 48
    remembered = ReferenceFrame(0, face, box, 0.0, (0.0, 0.0), landmarks)
    track = track_with_gaps(np.linspace(0, 5, 101), reference_frames=(remembered,))
    sound = np.linspace(0, 56, 8 * MEL_RATE, dtype=np.float32)[None]
    speaker = Speaker(track, Painter(share), sound, Fraction(25), Options())
    assert opening.fitting_gain(speaker, Ruler()) == gain


@pytest.mark.slow
def test_a_whole_video_opens_as_far_as_it_is_asked_to(clip, voice, tmp_path):
    """By a model that paints; one that is shown what fits is told so there (test_references.py)."""

    def made(factor: float | None) -> np.ndarray:
        out = tmp_path / f"{factor}.mp4"
        plain = {"model": "wav2lip-gan-lab", "visible_label": False, "watermark": False, "detail": False, "crf": 5}
        lipsync.sync(clip, voice, out, Options(mouth_opening=factor, **plain))
        with FrameReader(probe(out)) as frames:
            return np.stack([f.astype(float) for f in frames])

    half, network, wide, fitted = (made(x) for x in (0.5, 1.0, 1.75, None))
    moved = np.abs(wide - half) > 8  # more than coding changes
    less, more = (network - half)[moved], (wide - network)[moved]  # 0.5 and 0.75 of what the sound changes
    assert moved.sum() > 1000 and np.corrcoef(less, more)[0, 1] > 0.5
    assert np.vdot(less, more) > 0.7 * np.vdot(less, less)  # colours are matched anew, so not just 1.5
    assert np.vdot((fitted - network)[moved], more) > -0.05 * np.vdot(more, more)  # never less than the network's


def test_an_opening_out_of_bounds_is_a_sentence():
    with pytest.raises(InputError, match=r"0\.5 and 2 times"):
        Options(mouth_opening=9)


def test_every_speaker_is_fitted_and_the_mesh_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(LANDMARKS["mediapipe"], "close", lambda self: closed.append(self))
    fitted = []
    monkeypatch.setattr(opening, "fitting_gain", lambda speaker, _: fitted.append(speaker) or 1.25)
    speakers = [SimpleNamespace(opening=1.0), SimpleNamespace(opening=1.0)]
    opening.fit(speakers, Monitor())
    assert fitted == speakers and [s.opening for s in speakers] == [1.25, 1.25] and len(closed) == 1
    with pytest.raises(Cancelled):
        opening.fit(speakers, Monitor(cancelled=lambda: True))
    assert len(closed) == 2


def test_lips_are_no_redder_than_the_speakers_own():
    mask = np.zeros((96, 96), np.float32)
    mask[48:90, 20:76] = 1
    own = np.full((96, 96, 3), (200, 150, 130), np.uint8)  # skin
    own[60:70, 30:66] = (180, 90, 95)  # lips
    made = own.copy()
    made[72:80, 30:66] = (230, 40, 40)  # a red that nobody has
    made[62:66, 36:60] = (225, 222, 215)  # teeth
    kept = natural_red(made, own, mask)
    chroma = [cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb)[..., 1].astype(int) for p in (own, made, kept)]
    assert chroma[1].max() > chroma[0].max() + 30 and chroma[2].max() <= chroma[0].max() + 6
    assert np.abs(kept[62:66, 36:60].astype(int) - made[62:66, 36:60]).max() <= 3  # teeth stay teeth
    assert np.abs(kept[60:62, 30:66].astype(int) - made[60:62, 30:66]).max() <= 3  # lips too
    luma = [cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb)[..., 0].astype(int) for p in (made, kept)]
    assert np.abs(luma[0] - luma[1]).max() <= 2
    four = np.concatenate([own] * 4, axis=2)
    np.testing.assert_array_equal(natural_red(made, four, mask), kept)

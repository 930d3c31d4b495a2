"""Detail from the speaker's own frames: on a portrait under a grain that no network of 96 pixels shows."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from lipsync import detail, pipeline
from lipsync.__main__ import _parser
from lipsync.blending import mouth_mask, paste
from lipsync.detail import Exemplar, Exemplars, agreement, sharpness, take, unfolded
from lipsync.faces.tracking import find_faces
from lipsync.geometry import CropRule, crop_face
from lipsync.options import Options
from lipsync.pipeline import find, sync
from tests.conftest import portrait_frame

from .test_pipeline import Recorder

FPS, RULE = Fraction(25), CropRule()


def textured(x: float, y: float, scale: float = 2.2, size: tuple[int, int] = (520, 520)) -> np.ndarray:
    """The astronaut, her face 108 * scale pixels high, under a fine grain that moves with it: (H, W, 3) uint8 RGB."""
    grain = np.random.default_rng(3).normal(0, 14, (1200, 1200)).astype(np.float32)
    grain = cv2.warpAffine(grain, np.float32([[1, 0, x], [0, 1, y]]), size)
    face = portrait_frame(x, y, size, scale)
    return np.clip(face + grain[..., None], 0, 255).astype(np.uint8)


def where(i: int) -> tuple[float, float]:
    return -230 + 3 * np.sin(i / 5), -20 + 2 * np.cos(i / 4)


@pytest.fixture(scope="module")
def speaker():
    """Frames of a textured face that drifts, and its track with exemplars."""
    frames = [textured(*where(i)) for i in range(16)]
    (track,) = find_faces(frames, FPS, keep_exemplars=True).tracks
    return frames, track


def transfer(track, exemplars=None) -> detail.DetailTransfer:
    return detail.DetailTransfer(track.exemplars if exemplars is None else exemplars, RULE, 0.0, FPS)


def mouth(frames, track, i: int):
    """What a perfect network of 96 pixels would make of frame i: crop, place, mask, box."""
    place = RULE.alignment(track.boxes[i])
    return crop_face(frames[i], place, 96), place, mouth_mask(track.landmarks[i], place), track.boxes[i]


def laplacian(picture: np.ndarray, place: np.ndarray, mask: np.ndarray) -> float:
    size = int(place[0, 0])
    grey = cv2.cvtColor(crop_face(picture, place, size), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F)[cv2.resize(mask, (size, size)) > 0.6].var())


def test_texture_comes_back(speaker):
    frames, track = speaker
    made, place, mask, box = mouth(frames, track, 8)
    plain, with_detail = frames[8].copy(), frames[8].copy()
    paste(plain, place, made, mask)
    new, found = transfer(track)(made, made, mask, frames[8], box, 100)
    paste(with_detail, place, new, mask, found)
    truth, off, on = (laplacian(f, place, mask) for f in (frames[8], plain, with_detail))
    assert off < 0.1 * truth and 0.4 * truth < on < 1.3 * truth
    changed = (with_detail != frames[8]).any(2)
    assert not changed[(plain == frames[8]).all(2) & (cut_mask(mask, place, changed.shape) == 0)].any()


def cut_mask(mask: np.ndarray, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask in the frame: pasted white on black."""
    black = np.zeros((*shape, 3), np.uint8)
    paste(black, place, np.full((96, 96, 3), 255, np.uint8), mask)
    return black[..., 0]


def test_the_old_mouth_is_not_looked_at(speaker):
    """Frame and crop are painted over below the nose: the detail is the same."""
    frames, track = speaker
    made, place, mask, box = mouth(frames, track, 8)
    painted, crop = frames[8].copy(), made.copy()
    paste(painted, place, np.full((96, 96, 3), (200, 30, 60), np.uint8), mask)
    crop[48:] = 90
    one, two = (
        transfer(track)(made, made, mask, frames[8], box, 100),
        transfer(track)(made, crop, mask, painted, box, 100),
    )
    np.testing.assert_array_equal(one[0], two[0])
    for part in ("high", "flow", "share"):
        np.testing.assert_array_equal(getattr(one[1], part), getattr(two[1], part))


def test_a_frame_and_its_neighbours_are_not_the_source(speaker):
    frames, track = speaker
    made, _, mask, box = mouth(frames, track, 8)
    near, far = (replace(track.exemplars[4], frame=n) for n in (8, 13))
    far = replace(far, luma=255 - far.luma)
    _, found = transfer(track, (near, far))(made, made, mask, frames[8], box, 8)
    _, own = transfer(track, (near, far))(made, made, mask, frames[8], box, 100)
    np.testing.assert_allclose(found.high, -own.high, atol=2)
    same, nothing = transfer(track, (near,))(made, made, mask, frames[8], box, 10)
    assert nothing is None and same is made


def test_a_small_face_is_left_alone(speaker):
    frames, track = speaker
    made, _, mask, box = mouth(frames, track, 8)
    small = np.array([box[0], box[1], box[0] + 100, box[1] + 100])
    assert not take(0, frames[0], small, track.landmarks[0], 0.0, 0.0, (0.0, 0.0)).luma.size
    same, nothing = transfer(track)(made, made, mask, frames[8], small, 100)
    assert nothing is None and same is made
    (track,) = find_faces([portrait_frame(30, 10)] * 6, FPS, keep_exemplars=True).tracks
    assert track.size_px < detail.SMALLEST_PX and not any(e.luma.size for e in track.exemplars)


def test_another_mouth_gives_no_strokes(speaker):
    """The exemplar's mouth is a chequered patch that the made one has not: there nothing is added, beside it all."""
    frames, track = speaker
    made, place, mask, box = mouth(frames, track, 8)
    made = cv2.GaussianBlur(made, (0, 0), 1)
    x0, y0 = (place[:, 2] + place[:, :2] @ (0.4, 0.72)).astype(int)
    spoilt = frames[3].copy()
    for row in range(0, 40, 8):
        for column in range(0, 48, 8):
            spoilt[y0 + row : y0 + row + 8, x0 + column : x0 + column + 8] = 255 * ((row + column) // 8 % 2)
    whole, bad = (take(60, f, track.boxes[3], track.landmarks[3], 0.0, 0.0, (0.0, 0.0)) for f in (frames[3], spoilt))
    shares = [transfer(track, (e,))(made, made, mask, frames[8], box, 8)[1].share for e in (whole, bad)]
    inside = np.s_[73:83, 43:53]
    assert shares[0][inside].mean() > 0.7 and shares[1][inside].mean() < 0.15
    assert shares[1][62:88, 24:32].mean() > 0.6


def test_a_flow_that_folds_is_refused():
    flow = np.zeros((40, 60, 2), np.float32)
    flow[..., 0] = 7  # all moves alike
    assert unfolded(flow).all()
    flow[:, 30:, 0] = -7  # the right half lands on the left one
    kept = unfolded(flow)
    assert not kept[:, 30].any() and kept[:, :28].all() and kept[:, 33:].all()


def test_agreement_of_pictures():
    rng = np.random.default_rng(0)
    lines, others = (cv2.GaussianBlur(rng.integers(0, 255, (48, 48)).astype(np.uint8), (0, 0), 1) for _ in range(2))
    flat = rng.integers(100, 103, (48, 48)).astype(np.uint8)
    assert agreement(lines, lines).min() > 0.99 and agreement(flat, flat[::-1]).min() > 0.99
    assert agreement(lines, others).mean() < 0.25 and agreement(lines, 255 - lines).max() < 0.01


def exemplar(frame: int, traits: float, sharp: float = 1, side: int = 20) -> Exemplar:
    return Exemplar(
        frame,
        np.zeros((side, side), np.uint8),
        np.zeros(4),
        np.zeros((2, 2, 3), np.uint8),
        sharp,
        np.array([traits]),
        np.zeros((29, 2)),
    )


def test_exemplars_are_bounded_and_unlike(monkeypatch):
    monkeypatch.setattr(detail, "MOST", 4)
    kept = Exemplars()
    for i, traits in enumerate([0, 10, 20, 30, 10.1, 30.2, 40, 0.1]):
        kept.add("a", exemplar(i, traits, sharp=i))
    assert [e.frame for e in kept.of("a")] == [2, 4, 6, 7] or [e.frame for e in kept.of("a")] == [4, 5, 6, 7]
    assert kept.nbytes == 4 * 412
    monkeypatch.setattr(detail, "BYTES", 3000)
    for i in range(9):
        kept.add("b", exemplar(i, 5.0 * i))
        kept.add("c", exemplar(i, 5.0 * i, side=40))  # 1,612 bytes each
        assert kept.nbytes <= 3000
    assert kept.nbytes == sum(e.nbytes for t in "abc" for e in kept.of(t)) > 0


@pytest.mark.slow
def test_the_bound_holds_for_a_video(monkeypatch):
    monkeypatch.setattr(detail, "BYTES", 400_000)
    (track,) = find_faces([textured(*where(i)) for i in range(10)], FPS, keep_exemplars=True).tracks
    assert 0 < sum(e.nbytes for e in track.exemplars) <= 400_000


def test_a_blurred_frame_gets_blurred_detail(speaker):
    frames, track = speaker
    made, _, mask, box = mouth(frames, track, 8)
    blurred = cv2.GaussianBlur(frames[8], (0, 0), 2)
    assert sharpness(blurred, box) < 0.3 * sharpness(frames[8], box)
    sharp, soft = (transfer(track)(made, made, mask, f, box, 100)[1].share.sum() for f in (frames[8], blurred))
    assert soft < 0.4 * sharp


@pytest.mark.slow
def test_a_still_is_the_same_with_and_without(tmp_path, voice, monkeypatch):
    still = tmp_path / "still.png"
    cv2.imwrite(str(still), textured(*where(0))[..., ::-1])
    monkeypatch.setattr(pipeline, "VideoWriter", Recorder)
    frames = {}
    for on in (True, False):
        Recorder.kept = []
        sync(still, voice, tmp_path / "out.mp4", Options(detail=on, end=0.4))
        frames[on] = np.stack(Recorder.kept)
    np.testing.assert_array_equal(frames[True], frames[False])


@pytest.mark.slow
def test_a_synced_mouth_is_as_sharp_as_the_face_around_it(tmp_path, voice, monkeypatch):
    """The whole way, in a clip longer than what is barred: with detail the mouth is at least three times as sharp."""
    clip = tmp_path / "clip.mp4"
    with pipeline.VideoWriter(clip, 520, 520, FPS, 48_000, crf=8) as writer:
        for i in range(30):
            writer.write(textured(*where(i)))
    found = find(clip)
    (track,) = found.faces.tracks
    assert track.exemplars
    monkeypatch.setattr(pipeline, "VideoWriter", Recorder)
    sharp = {}
    for on in (True, False):
        Recorder.kept = []
        sync(found, voice, tmp_path / "out.mp4", Options(detail=on, if_audio_longer="cut", visible_label=False))
        places = [RULE.alignment(b) for b in track.boxes]
        sharp[on] = np.median(
            [laplacian(f, r, mouth_mask(p, r)) for f, r, p in zip(Recorder.kept, places, track.landmarks, strict=True)]
        )
    assert sharp[True] > 3 * sharp[False]


def test_the_option_of_the_command_line():
    assert _parser().parse_args(["sync", "a.mp4", "b.wav", "--out", "c.mp4", "--no-detail"]).detail is False
    assert _parser().parse_args(["sync", "a.mp4", "b.wav", "--out", "c.mp4"]).detail is True

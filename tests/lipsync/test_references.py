"""Reference pictures: which of a speaker's own frames a model sees beside the frame."""

import json
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lipsync
from lipsync.checkpoints.registry import write_card
from lipsync.detail import PATCH_BOX, PATCH_PX, Exemplar, mouth_of
from lipsync.engines import BATCH
from lipsync.faces.landmarks import CORNERS, STEADY
from lipsync.faces.references import FURTHER, Resting, Roles
from lipsync.faces.tracking import ReferenceFrame
from lipsync.geometry import CropRule, crop_face, to_crop
from lipsync.models.base import open_model
from lipsync.models.wav2lip import UNLIKE, WarpModel, alike, composed, to_network
from lipsync.networks.warp import FARTHEST, REFERENCES, Warp, compose
from lipsync.options import Options
from lipsync.render import Mouth, _find
from tests.conftest import ROOT

FPS = Fraction(25)
MODEL = SimpleNamespace(rule=CropRule(), size_px=96, roles=("closed", "open", "spread", "round"))
LANDMARKS = np.random.default_rng(2).uniform(60, 190, (29, 2)).astype(np.float32)
LANDMARKS[STEADY] = [[80, 100], [112, 100], [144, 100], [176, 100], [128, 160], [128, 130]]
WHERE = MODEL.rule.alignment(PATCH_BOX), LANDMARKS  # of a frame that lies as the exemplars do


def picture(light: int) -> np.ndarray:
    return np.full((PATCH_PX, PATCH_PX, 3), light, np.uint8)


def exemplar(frame: int, opening: float, width: float) -> Exemplar:
    none, traits = np.zeros((0, 0), np.uint8), np.array([opening, width])
    return Exemplar(frame, none, PATCH_BOX, picture(100 + frame // 10), 1.0, traits, LANDMARKS, opening, width)


def resting() -> Resting:
    return Resting((ReferenceFrame(0, picture(7), PATCH_BOX, 0.01, (0, 0), LANDMARKS),), MODEL, 0.0)


def shown(roles: Roles, crop: np.ndarray, source: int) -> list[int]:
    """The frame of each reference, told by its light."""
    return [10 * (int(v) - 100) for v in roles(crop, source, *WHERE)[0, 0, ::3]]


CLOSED, OPEN, WIDE, ROUND = (
    exemplar(0, 0.0, 0.5),
    exemplar(10, 0.2, 0.5),
    exemplar(20, 0.02, 0.7),
    exemplar(30, 0.03, 0.3),
)


def test_each_role_has_its_picture():
    crop = crop_face(picture(100), MODEL.rule.alignment(PATCH_BOX), 96)
    roles = Roles(resting(), (CLOSED, OPEN, WIDE, ROUND), MODEL, 0.0, FPS)
    assert roles(crop, 100, *WHERE).shape == (96, 96, 12)
    assert shown(roles, crop, 100) == [0, 10, 20, 30]


def test_no_reference_is_near_the_frame():
    """Neither the frame nor its neighbours, although they have the role."""
    crop = crop_face(picture(100), MODEL.rule.alignment(PATCH_BOX), 96)
    for source in (10, 12):
        at = shown(Roles(resting(), (CLOSED, OPEN, WIDE, ROUND), MODEL, 0.0, FPS), crop, source)
        assert 10 not in at and at[2:] == [20, 30]
    roles = Roles(resting(), (CLOSED, OPEN), MODEL, 0.0, FPS)
    assert shown(roles, crop, 20)[:2] == [0, 10]
    assert shown(roles, crop, 10) == [0] * 4  # what was in use is barred now


def lips(frame: int, gap: int) -> Exemplar:
    """A face with a dark mouth, so many rows of a patch high; its frame is written above it."""
    face = picture(150)
    face[: PATCH_PX // 4] = 100 + frame // 10
    face[166 - gap : 166 + gap, 108:148] = 20
    return replace(exemplar(frame, gap / 100, 0.5), patch=face)


def face_of(one: Exemplar, light: int = 0) -> np.ndarray:
    return crop_face(one.patch, MODEL.rule.alignment(PATCH_BOX), 96) + np.uint8(light)


def written(references: np.ndarray) -> list[int]:
    return [10 * (int(v) - 100) for v in references[0, 48, ::3]]


def test_the_picture_is_found_whose_mouth_does_what_a_made_one_does():
    """Made mouths are a quarter as far from rest as people's, and in another light; both do not matter."""
    kept = tuple(lips(10 * k, 3 * max(k - 2, 0)) for k in range(8))  # three of them at rest
    mask = np.pad(np.ones((44, 60), np.float32), ((50, 2), (18, 18)))
    rest, crop = face_of(kept[0], 40), face_of(kept[3])
    for wanted in (3, 5, 7):
        wide = face_of(kept[wanted], 40)
        moved = (mouth_of(wide) - mouth_of(rest)) / FURTHER
        roles = Roles(resting(), kept, MODEL, 0.0, FPS)
        found = written(roles.fitting(crop, 1000, *WHERE, mask, moved))
        assert found[0] == 10 * wanted
        again = written(Roles(resting(), kept, MODEL, 0.0, FPS).fitting(crop, 10 * wanted, *WHERE, mask, moved))
        assert 10 * wanted not in again  # it is the frame itself, which has the answer
        hidden = crop.copy()
        hidden[48:] = 0  # nor does the mouth that the frame has tell
        other = Roles(resting(), kept, MODEL, 0.0, FPS).fitting(hidden, 1000, *WHERE, mask, moved)
        assert written(other) == found
    one, few = (Roles(resting(), kept[:n], MODEL, 0.0, FPS) for n in (1, 2))
    assert not one.serves(2) and one.serves(1000)
    few = few.fitting(crop, 1000, *WHERE, mask, np.zeros_like(moved))
    assert few.shape == (96, 96, 12) and set(written(few)) == {0, 10}


def test_how_far_a_mouth_is_to_open_is_what_is_looked_for():
    kept = tuple(lips(10 * k, 3 * max(k - 2, 0)) for k in range(8))  # three of them at rest
    mask = np.pad(np.ones((44, 60), np.float32), ((50, 2), (18, 18)))
    half = (mouth_of(face_of(kept[5])) - mouth_of(face_of(kept[0]))) / FURTHER

    def opened(factor: float) -> int:
        roles = Roles(resting(), kept, MODEL, 0.0, FPS)
        return written(roles.fitting(face_of(kept[3]), 1000, *WHERE, mask, factor * half))[0]

    assert opened(0.0) < 30 <= opened(0.5) < opened(1.0) == 50


def test_what_sound_does_is_asked_of_every_other_frame_and_between_in_between():
    asked, wanted = [], []

    class Hearing:
        def response(self, crops, references, windows):
            asked.extend(windows[:, 0, 0].tolist())
            return windows[:, :1].repeat(3, 1) * np.ones((1, 1, 512), np.float32)

    def spoken(track: int, frame: int, seen: bool, opening: float = 1.0) -> Mouth:
        none = np.zeros((96, 96, 3), np.uint8)
        window = np.full((80, 1), 10.0 * frame, np.float32)

        def fitting(moved: np.ndarray) -> np.ndarray:
            wanted.append((track, frame, float(moved.mean())))
            return none

        shown = none if seen else None
        return Mouth(track, 0, 0, frame, none, none, none, none, shown, window, None, opening, fitting)

    two = [spoken(1, f, f % 2 == 0, 1.5) for f in range(4, 8)] + [spoken(2, f, f != 9) for f in (8, 9, 12)]
    _find(two, Hearing())
    assert asked == [40, 60, 80, 120]
    assert wanted == [(1, 4, 60), (1, 5, 75), (1, 6, 90), (1, 7, 90), (2, 8, 80), (2, 9, 90), (2, 12, 120)]
    asked.clear(), wanted.clear()
    _find([spoken(1, 5, False), spoken(1, 7, False)], Hearing())  # the ones to be asked are covered
    assert not asked and wanted == [(1, 5, 0), (1, 7, 0)]


@pytest.mark.slow
def test_a_video_asks_of_every_other_frame_and_makes_each_mouth_once(clip, voice, tmp_path, monkeypatch):
    counts = {"response": 0, "refit": 0, "generate": 0}

    def counted(name: str):
        plain = getattr(WarpModel, name)

        def call(self, crops, references, windows):
            counts[name] += len(crops)
            return plain(self, crops, references, windows)

        return call

    for name in counts:
        monkeypatch.setattr(WarpModel, name, counted(name))
    report = lipsync.sync(clip, voice, tmp_path / "out.mp4", Options(model="wav2lip-warp-lab"))
    made = counts["refit"]
    assert made == report.frames_synced > 20
    assert counts["generate"] == 2 * counts["response"]
    assert made / 2 <= counts["response"] <= made / 2 + made / BATCH + 1


def test_eyes_and_nose_lie_in_every_reference_nearly_as_in_the_crop():
    """Of a frame in which the head is tilted by 20 degrees, smaller, and elsewhere; its mouth does not matter."""
    turn = 0.7 * np.array([[np.cos(0.35), -np.sin(0.35)], [np.sin(0.35), np.cos(0.35)]])
    frame = LANDMARKS @ turn.T + [300, 40]
    marked = picture(0)
    for x, y in LANDMARKS[STEADY]:
        cv2.circle(marked, (int(16 * (x - 0.5)), int(16 * (y - 0.5))), 16 * 3, (255, 255, 255), -1, cv2.LINE_AA, 4)
    marked_one = replace(CLOSED, patch=marked)
    x, y = frame[STEADY].mean(0)
    alignment = MODEL.rule.alignment(np.array([x - 50, y - 50, x + 50, y + 50], np.float32), frame)
    frame[CORNERS] += 30
    roles = Roles(resting(), (marked_one,) * 2, MODEL, 0.0, FPS)
    cut = roles(np.zeros((96, 96, 3), np.uint8), 100, alignment, frame)[..., 0].astype(float)
    across, down = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
    for place in to_crop(frame[STEADY], alignment, 96):
        near = cut * (np.hypot(across - place[0], down - place[1]) < 5)
        assert near.max() > 200
        assert (across * near).sum() / near.sum() == pytest.approx(place[0], abs=1)
        assert (down * near).sum() / near.sum() == pytest.approx(place[1], abs=1)


def test_references_of_another_pose_count_less():
    crop = np.full((96, 96, 3), 100, np.uint8)
    references = np.concatenate([np.full((96, 96, 3), 100 + light, np.uint8) for light in (6, 0, 3, 0)], axis=2)
    maps = np.zeros((16, 96, 96), np.float32)
    maps[11:] = 0.2
    weights = alike(maps, crop, references)[11:, 50, 50]
    np.testing.assert_allclose(weights / weights[1], np.exp([-6 / UNLIKE, 0, -3 / UNLIKE, 0, 0]), rtol=1e-4)
    assert weights.sum() == pytest.approx(1)
    same = alike(maps, crop, np.concatenate([crop] * 4, axis=2))
    np.testing.assert_allclose(same, maps, atol=1e-6)  # pictures of one pose are mixed as the network says


def test_a_still_has_one_picture_for_all_roles():
    crop = crop_face(picture(100), MODEL.rule.alignment(PATCH_BOX), 96)
    for exemplars in ((), (CLOSED,)):
        seen = Roles(resting(), exemplars, MODEL, 0.0, FPS)(crop, 0, *WHERE)
        assert seen.shape == (96, 96, 12) and (seen == 7).all()


def test_the_network_sees_each_picture_in_bgr():
    crops, references = np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 96, 96, 12), np.uint8)
    references[..., 3] = 255  # the second one is red
    face = to_network(crops, references)
    assert face.shape == (1, 15, 96, 96) and (face[0, 8] == 1).all() and face.sum() == 96 * 96


@pytest.fixture(scope="module")
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    """What an untrained network says of a picture, and the references."""
    torch.manual_seed(0)
    network, face = Warp(2).eval(), torch.rand(2, 3 + 3 * REFERENCES, 96, 96)
    with torch.no_grad():
        network.output_block[1].weight *= 40
        return network(torch.randn(2, 1, 80, 16), face), face[:, 3:]


def test_the_picture_is_the_same_in_training_and_inference(maps):
    found, references = maps
    truth = compose(found, references).numpy().transpose(0, 2, 3, 1)[..., ::-1] * 255
    pictures = (references.numpy() * 255 + 0.5).astype(np.uint8).reshape(2, 4, 3, 96, 96)[:, :, ::-1]
    rgb = np.ascontiguousarray(pictures.reshape(2, 12, 96, 96).transpose(0, 2, 3, 1))
    made = np.stack([composed(m, r) for m, r in zip(found.numpy(), rgb, strict=True)])
    assert np.abs(made - truth).mean() < 1 and np.abs(found.numpy()[:, 3:11]).max() <= FARTHEST
    np.testing.assert_allclose(found[:, 11:].sum(1).numpy(), 1, atol=1e-5)


def test_a_displacement_moves_the_picture():
    rng = np.random.default_rng(0)
    references = rng.integers(0, 255, (96, 96, 12)).astype(np.uint8)
    found = np.zeros((16, 96, 96), np.float32)
    found[12] = 1  # all of the second reference
    found[5], found[6] = 5 / 96, -3 / 96
    np.testing.assert_array_equal(composed(found, references)[3:, :-5], references[:-3, 5:, 3:6])


@pytest.mark.slow
def test_every_engine_runs_a_network_of_four_references(tmp_path, monkeypatch):
    """A tiny one of random weights, registered: torch and OpenVINO make the same pictures of it."""
    torch.manual_seed(0)
    path = tmp_path / "tiny-warp.safetensors"
    save_file(Warp(2).state_dict(), path)
    card = json.loads((ROOT / "lipsync" / "weights" / "wav2lip-lab.json").read_text())
    write_card(path, {"architecture": "wav2lip-warp", "config": {"width": 2}, "crop": card["crop"]})
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    crops, references = (rng.integers(0, 255, (3, 96, 96, 3 * n)).astype(np.uint8) for n in (1, 4))
    windows = rng.normal(0, 1, (3, 80, 16)).astype(np.float32)
    made = [open_model("tiny-warp", e).generate(crops, references, windows) for e in ("torch", "openvino cpu float32")]
    assert made[0].shape == (3, 96, 96, 3) and made[0].std() > 10
    assert np.abs(made[0].astype(int) - made[1]).max() <= 1

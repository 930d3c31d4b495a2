"""Reference pictures: which of a speaker's own frames a model sees beside the frame."""

import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lipsync.checkpoints.registry import write_card
from lipsync.detail import PATCH_BOX, Exemplar
from lipsync.faces.references import Resting, Roles
from lipsync.faces.tracking import ReferenceFrame
from lipsync.geometry import CropRule, crop_face
from lipsync.models.base import open_model
from lipsync.models.wav2lip import composed, to_network
from lipsync.networks.warp import FARTHEST, REFERENCES, Warp, compose
from tests.conftest import ROOT

FPS = Fraction(25)
MODEL = SimpleNamespace(rule=CropRule(), size_px=96, roles=("closed", "open", "spread", "round"))
LANDMARKS = np.zeros((29, 2), np.float32)


def picture(light: int) -> np.ndarray:
    return np.full((160, 160, 3), light, np.uint8)


def exemplar(frame: int, opening: float, width: float) -> Exemplar:
    none, traits = np.zeros((0, 0), np.uint8), np.array([opening, width])
    return Exemplar(frame, none, PATCH_BOX, picture(100 + frame // 10), 1.0, traits, LANDMARKS, opening, width)


def resting() -> Resting:
    return Resting((ReferenceFrame(0, picture(7), PATCH_BOX, 0.01, (0, 0), LANDMARKS),), MODEL, 0.0)


def shown(roles: Roles, crop: np.ndarray, source: int) -> list[int]:
    """The frame of each reference, told by its light."""
    return [10 * (int(v) - 100) for v in roles(crop, source)[0, 0, ::3]]


CLOSED, OPEN, WIDE, ROUND = (
    exemplar(0, 0.0, 0.5),
    exemplar(10, 0.2, 0.5),
    exemplar(20, 0.02, 0.7),
    exemplar(30, 0.03, 0.3),
)


def test_each_role_has_its_picture():
    crop = crop_face(picture(100), MODEL.rule.alignment(PATCH_BOX), 96)
    roles = Roles(resting(), (CLOSED, OPEN, WIDE, ROUND), MODEL, 0.0, FPS)
    assert roles(crop, 100).shape == (96, 96, 12)
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


def test_a_still_has_one_picture_for_all_roles():
    crop = crop_face(picture(100), MODEL.rule.alignment(PATCH_BOX), 96)
    for exemplars in ((), (CLOSED,)):
        seen = Roles(resting(), exemplars, MODEL, 0.0, FPS)(crop, 0)
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

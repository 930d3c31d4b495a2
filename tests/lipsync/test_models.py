"""The contract of lip-sync models, over all of them and the fake."""

from fractions import Fraction

import numpy as np
import pytest

import lipsync
from lipsync import audio
from lipsync.checkpoints import registry
from lipsync.errors import ModelError
from lipsync.models import base
from lipsync.models.base import BLENDS, MODELS, ROLES, open_model
from tests.helpers.models import CopyModel, copy_model, register_untrained  # noqa: F401 - a fixture

SMALL = {name: {"width": 2} for name in MODELS}  # config of a quick network of random weights


@pytest.fixture(params=[*MODELS, "copy"])
def model(request, tmp_path, monkeypatch):
    monkeypatch.setitem(base.MODELS, "copy", CopyModel)
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    name = register_untrained(tmp_path, request.param, f"tiny-{request.param}", **SMALL.get(request.param, {}))
    return open_model(name, "torch")


def inputs(model, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng, s = np.random.default_rng(seed), model.size_px
    crops, references = (rng.integers(0, 256, (count, s, s, 3 * n)).astype(np.uint8) for n in (1, len(model.roles)))
    features = model.audio_features(rng.normal(0, 0.1, 48_000).astype(np.float32))
    return crops, references, model.windows(features, 10, count, Fraction(25))


def test_it_says_what_it_is(model):
    assert model.blend in BLENDS and set(model.roles) <= set(ROLES) and model.roles
    assert model.audio.feature in audio.FEATURES
    assert model.size_px == model.card.size_px
    assert model.engine.startswith("torch")


@pytest.mark.slow
def test_pictures_have_the_crops_size_whatever_the_count(model):
    for count in (1, 3):
        made = model.generate(*inputs(model, count))
        assert made.shape == (count, model.size_px, model.size_px, 3) and made.dtype == np.uint8


@pytest.mark.slow
def test_an_item_does_not_depend_on_its_neighbours(model):
    crops, references, windows = inputs(model, 3)
    whole = model.generate(crops, references, windows)
    alone = model.generate(crops[1:2], references[1:2], windows[1:2])
    assert np.abs(whole[1].astype(int) - alone[0]).max() <= 1


@pytest.mark.slow
def test_the_same_again_is_the_same(model):
    given = inputs(model, 2)
    np.testing.assert_array_equal(model.generate(*given), model.generate(*given))


def test_windows_follow_the_frame_rate_and_one_frame_at_a_time_is_the_same(model):
    features = model.audio_features(np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32))
    for fps in (Fraction(25), Fraction(30000, 1001)):
        many = model.windows(features, 5, 4, fps)
        assert many.shape[0] == 4 and many.shape[2] == model.audio.width and many.dtype == np.float32
        np.testing.assert_array_equal(many[2], model.windows(features, 7, 1, fps)[0])
    assert np.isfinite(model.windows(features, 10_000, 2, Fraction(25))).all()  # long after the voice's end


def test_silent_windows_are_those_of_silence(model):
    features = model.audio_features(np.zeros(4 * 16_000, np.float32))
    np.testing.assert_allclose(model.silent_windows(2), model.windows(features, 40, 2, Fraction(25)), atol=1e-4)


@pytest.mark.slow
def test_it_runs_alike_in_openvino(model):
    given = inputs(model, 2)
    fast = open_model(model.card.name, "openvino cpu float32")
    assert np.abs(model.generate(*given).astype(int) - fast.generate(*given)).max() <= 2


def test_its_sample_fits_its_inputs(model):
    sample = model.sample()
    assert list(sample) == list(model.inputs)
    assert all(v.shape[1:] == model.inputs[k] and v.dtype == np.float32 for k, v in sample.items())


@pytest.mark.slow
def test_a_network_in_memory_is_the_same_model(model):
    """`around`, which trainers use, gives what the registered checkpoint gives."""
    network = registry.load(model.card.name)
    given = inputs(model, 2)
    same = type(model).around(network, model.rule)
    assert same.audio.feature == model.audio.feature and same.size_px == model.size_px
    np.testing.assert_array_equal(same.generate(*given), model.generate(*given))


def test_an_unknown_architecture_is_a_sentence():
    with pytest.raises(ModelError, match="no model of the architecture 'gan-9'"):
        base.model_class("gan-9")


@pytest.mark.slow
def test_a_whole_video_with_the_fake(copy_model, clip, voice, tmp_path):  # noqa: F811
    """A model's registration is all that the pipeline needs; one that copies changes nothing but a few grey levels."""
    options = lipsync.Options(
        model=copy_model, engine="torch", visible_label=False, watermark=False, if_audio_shorter="cut"
    )
    report = lipsync.sync(clip, voice, tmp_path / "out.mp4", options)
    assert report.model == copy_model and report.frames_synced == report.frames


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [a for a in MODELS if not a.startswith("wav2lip")])
def test_an_untrained_model_of_every_kind_makes_a_labelled_video(architecture, clip, voice, tmp_path, monkeypatch):
    """From its registration alone: aligned by box or landmarks, blended in its own way, nothing outside the face."""
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    name = register_untrained(tmp_path, architecture, f"tiny-{architecture}", width=2)
    report = lipsync.sync(
        clip,
        voice,
        tmp_path / "out.mp4",
        lipsync.Options(model=name, engine="torch", watermark=False, if_audio_shorter="cut"),
    )
    assert report.model == name and report.frames_synced == report.frames > 30
    assert lipsync.verify(tmp_path / "out.mp4").exit_code == 0


@pytest.mark.slow
def test_a_picture_speaks_through_speech2vid(voice, tmp_path, monkeypatch):
    import cv2

    from tests.conftest import portrait_frame

    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    name = register_untrained(tmp_path, "speech2vid", "tiny-still", width=2)
    cv2.imwrite(str(tmp_path / "still.png"), portrait_frame(10, 10)[..., ::-1])
    report = lipsync.sync(
        tmp_path / "still.png", voice, tmp_path / "out.mp4", lipsync.Options(model=name, engine="torch")
    )
    assert report.frames_synced == report.frames == 40

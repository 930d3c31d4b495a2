"""The evaluator: its flat form is the published network, batches change nothing, sound streams, and which is taken."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional

from eval.protocols import protocol
from eval.score import score_file
from eval.syncnet import BATCH, MFCC_ROWS, Evaluator, _on_gpu, audio_features, planes, sound_windows
from lipsync import audio
from lipsync.checkpoints import registry as checkpoints
from lipsync.engines import has_bf16
from lipsync.errors import InputError, ModelError
from lipsync.media.reader import read_waveform
from lipsync.networks.syncnet import SyncNet, flat_lip
from tests.helpers.made import lab_evaluator, spoken, talking_clip
from tests.helpers.media_maker import count_up, write_media
from tests.lipsync.test_networks import filled

REFERENCE = {"offset": 3, "lse_d": 5.353, "lse_c": 10.021}  # protocol.md, section 5: the demo's example.avi


def narrow(seed: int = 0) -> SyncNet:
    """A narrow network of random weights, its batch normalisation not that of an untrained one."""
    torch.manual_seed(seed)
    network = SyncNet(width=2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def assert_near(found: torch.Tensor | np.ndarray, wanted: torch.Tensor | np.ndarray, share: float = 1e-4) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= share * np.abs(wanted).max()


def test_the_flat_network_is_the_published_one():
    network, frames = narrow(), torch.rand(2, 3, 5, 224, 224) * 255
    with torch.inference_mode():
        assert_near(flat_lip(network)(frames.transpose(1, 2).flatten(1, 2)), network.lip(frames))


def test_a_half_picture_counts_as_doubled():
    network, small = narrow(), torch.rand(2, 15, 112, 112) * 255
    doubled = functional.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        wanted = network.lip(doubled.unflatten(1, (5, 3)).transpose(1, 2))
        found = flat_lip(network, halved=True)(small)
    assert_near(found, wanted)


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A function that puts a network into an own folder of weights, under a name, with `input` facts on its card."""
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))

    def put(network: SyncNet, name: str, base: int | None = None, **facts) -> None:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / f"{name}.safetensors")
        checkpoints.write_card(
            tmp_path / f"{name}.safetensors",
            {"architecture": "syncnet", "config": {} if base is None else {"width": base}, "input": facts},
        )

    return put


@pytest.mark.slow
@pytest.mark.parametrize("facts", [{}, {"lip_px": 112, "compare": "unit length"}])
def test_an_evaluator_embeds_as_its_network_and_card_say(offered, facts):
    network, size_px = narrow(1), facts.get("lip_px", 224)
    offered(network, "mine", base=2, **facts)
    evaluator = Evaluator("mine")
    assert (evaluator.size_px, evaluator.detector) == (size_px, "mediapipe")
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (7, size_px, size_px, 3), np.uint8)
    mfcc = rng.uniform(-20, 20, (3, MFCC_ROWS, 13)).astype(np.float32)
    windows = np.stack([crops[k : k + 5, ..., ::-1].transpose(3, 0, 1, 2) for k in range(3)])  # as SyncNet.lip: BGR
    frames = torch.from_numpy(windows.astype(np.float32))
    if size_px == 112:
        frames = functional.interpolate(frames.flatten(1, 2), scale_factor=2, mode="bilinear").unflatten(1, (3, 5))
    with torch.inference_mode():
        seen, heard = network.lip(frames), network.audio(torch.from_numpy(mfcc.transpose(0, 2, 1)[:, None].copy()))
    if facts:
        seen, heard = functional.normalize(seen), functional.normalize(heard)
    assert_near(evaluator.faces(np.stack([planes(crop) for crop in crops])), seen, 1e-3)
    assert_near(evaluator.sound(mfcc), heard, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [7, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, BATCH))])
def test_where_the_picture_is_cut_changes_no_bit(cut):
    evaluator = lab_evaluator()
    crops = np.random.default_rng(0).integers(0, 256, (BATCH + 9, 3, evaluator.size_px, evaluator.size_px), np.uint8)
    whole = evaluator.faces(crops)
    assert whole.shape == (BATCH + 5, 1024)
    np.testing.assert_array_equal(
        np.concatenate([evaluator.faces(crops[: cut + 4]), evaluator.faces(crops[cut:])]), whole
    )


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 50), cut=st.integers(0, 50))
def test_where_the_sound_is_cut_changes_no_bit(count, cut):
    evaluator, cut = lab_evaluator(), min(cut, count)
    mfcc = np.random.default_rng(0).uniform(-20, 20, (50, MFCC_ROWS, 13)).astype(np.float32)[:count]
    whole = evaluator.sound(mfcc)
    np.testing.assert_array_equal(np.concatenate([evaluator.sound(mfcc[:cut]), evaluator.sound(mfcc[cut:])]), whole)


@pytest.mark.slow
def test_threads_may_share_an_evaluator():
    evaluator, mfcc = (
        lab_evaluator(),
        np.random.default_rng(0).uniform(-20, 20, (200, MFCC_ROWS, 13)).astype(np.float32),
    )
    wanted = evaluator.sound(mfcc)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(evaluator.sound, [mfcc] * 8):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("fast", [False, True])
def test_float32_on_a_gpu_is_float32(monkeypatch, fast):
    """Without a GPU: what cuDNN is allowed while the network runs."""
    allowed = []

    class Network(torch.nn.Module):
        def cuda(self):
            return self

        def forward(self, x):
            allowed.append(torch.backends.cudnn.allow_tf32)
            return x

    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    before = torch.backends.cudnn.allow_tf32
    _on_gpu(Network(), (1, 2), np.float32, fast)(np.zeros((1, 2), np.float32))
    assert allowed == [fast] and torch.backends.cudnn.allow_tf32 == before


@pytest.mark.slow
def test_sound_streams_to_the_same_rows(tmp_path):
    made = spoken(tmp_path, 3.27)
    soundfile.write(tmp_path / "voice.wav", made, 16_000)
    mfcc, samples, peak = audio_features(tmp_path / "voice.wav")
    waveform = read_waveform(tmp_path / "voice.wav")
    pcm = np.clip(np.round(waveform * 32768), -32768, 32767)
    np.testing.assert_array_equal(mfcc, audio.mfcc_syncnet(pcm).astype(np.float32))
    assert samples == len(waveform) and peak == pytest.approx(np.abs(made).max(), abs=1e-3)


def test_windows_of_sound_repeat_the_last_row():
    mfcc = np.arange(30, dtype=np.float32)[:, None].repeat(13, 1)
    found = sound_windows(mfcc, [0, 2, 5])
    assert found.shape == (3, MFCC_ROWS, 13)
    np.testing.assert_array_equal(found[1, :, 0], np.arange(8, 28))
    np.testing.assert_array_equal(found[2, :, 0], [*range(20, 30), *[29] * 10])


def test_a_file_without_sound(tmp_path):
    write_media(tmp_path / "mute.mp4", count_up(5))
    with pytest.raises(InputError, match="mute.mp4"):
        audio_features(tmp_path / "mute.mp4")


def test_no_judge_of_that_name():
    with pytest.raises(ModelError, match="no evaluator named 'expert-lab': choose one of .*syncnet-lab"):
        Evaluator("expert-lab")


def test_the_published_judge_must_be_fetched_first(tmp_path, monkeypatch):
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    monkeypatch.delenv("LIPSYNC_WEIGHTS", raising=False)
    with pytest.raises(ModelError, match="python -m lipsync fetch syncnet-v2"):
        Evaluator("syncnet-v2")


@pytest.mark.slow
def test_auto_takes_the_published_judge_where_it_is(offered, tmp_path):
    offered(filled("syncnet"), "syncnet-v2")
    clip = talking_clip(tmp_path / "talks.mp4", 40)
    evaluator = Evaluator()
    assert (evaluator.name, evaluator.size_px, evaluator.detector) == ("syncnet-v2", 224, "mediapipe")
    row = score_file(clip, evaluator, protocol("short"))
    assert (
        row.error is None and row.evaluator == "syncnet-v2" and row.evaluator_sha256 == checkpoints.sha256("syncnet-v2")
    )
    assert row.lse_d > 0 and row.detector == "mediapipe" and row.frames == 40


@pytest.mark.slow
def test_fast_is_the_same_within_a_hundredth(tmp_path):
    clip = talking_clip(tmp_path / "talks.mp4", 60)
    exact = score_file(clip, lab_evaluator(), protocol("short"))
    fast = score_file(clip, Evaluator("syncnet-lab", fast=True), protocol("short"))
    assert fast.fast == has_bf16() and not exact.fast
    assert (fast.protocol_hash != exact.protocol_hash) == fast.fast
    assert fast.lse_d == pytest.approx(exact.lse_d, rel=0.01)


@pytest.mark.slow
def test_the_reference_run(shared_data):
    if not checkpoints.cards()["syncnet-v2"].path:
        pytest.skip("syncnet-v2 is not here (python -m lipsync fetch syncnet-v2): the reference run is not made")
    row = score_file(
        shared_data / "wild" / "syncnet_example.avi", Evaluator("syncnet-v2"), protocol("lrs").with_shifts(10)
    )
    assert row.offset == REFERENCE["offset"]
    assert row.lse_d == pytest.approx(REFERENCE["lse_d"], abs=0.05)
    assert row.lse_c == pytest.approx(REFERENCE["lse_c"], abs=0.05)


def test_planes_are_blue_first():
    crop = np.zeros((4, 4, 3), np.uint8)
    crop[..., 0] = 200  # red
    assert planes(crop)[2].min() == 200 and planes(crop)[:2].max() == 0

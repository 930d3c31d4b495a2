"""Sound features against the golden vectors, at the edges, and over ten minutes."""

import json
import subprocess
import sys
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipsync import audio


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "audio.npz"))


def noise(seconds: float, level_db: float) -> np.ndarray:
    """Speech-like sound for level tests: white noise of an RMS in dBFS, 16 kHz."""
    rng = np.random.default_rng(0)
    return (10 ** (level_db / 20) * rng.standard_normal(round(16000 * seconds))).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(16000 * seconds), np.float32)


@pytest.mark.slow
def test_import_leaves_torch_alone() -> None:
    script = "import lipsync.audio, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_mel_is_the_golden_one(vectors: dict[str, np.ndarray]) -> None:
    result = audio.mel(vectors["pcm"] / np.float32(32768))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, vectors["mel"], rtol=0, atol=1e-3)


def test_both_mfccs_are_the_golden_ones(vectors: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(audio.mfcc_syncnet(vectors["pcm"]), vectors["mfcc"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(audio.mfcc12(vectors["pcm"]), vectors["mfcc12"], rtol=0, atol=1e-3)


@given(st.integers(0, 1300))
@settings(max_examples=40, deadline=None)
def test_any_length_has_its_stated_shape(n_samples: int) -> None:
    waveform = noise(1, -20)[:n_samples]
    mel, rows = audio.mel(waveform), audio.mfcc_syncnet(32767 * waveform)
    columns = audio.mfcc12(32767 * waveform)
    assert mel.shape == (80, 1 + n_samples // 200)
    assert rows.shape == (1 + max(0, -(-(n_samples - 400) // 160)), 13)
    assert columns.shape == (12, max(0, 1 + (n_samples - 400) // 160))
    assert all(np.isfinite(values).all() for values in (mel, rows, columns))
    assert np.abs(mel).max() <= 4


def test_digital_silence_is_finite_and_the_silence_value() -> None:
    assert (audio.mel(silence(1)) == audio.SILENCE).all()
    assert (audio.mel(silence(0)) == audio.SILENCE).all()
    assert np.isfinite(audio.mfcc_syncnet(silence(1))).all()
    assert np.isfinite(audio.mfcc12(silence(1))).all()


def test_blocks_leave_no_seam() -> None:
    """Columns on both sides of a block's border are those of the sound around it alone."""
    waveform = noise(audio._BLOCK * 200 / 16000 + 10, -20)
    first = audio._BLOCK - 80
    part = audio.mel(waveform[first * 200 :])
    np.testing.assert_allclose(audio.mel(waveform)[:, first + 3 :], part[:, 3:], rtol=0, atol=1e-4)


def test_mel_refuses_samples_on_the_wrong_scale(vectors: dict[str, np.ndarray]) -> None:
    with pytest.raises(AssertionError, match="float samples"):
        audio.mel(vectors["pcm"])


def test_window_starts_are_the_golden_ones(golden: Path) -> None:
    for case in json.loads((golden / "mel_windows.json").read_text()):
        for kind in ("inference", "evaluation"):
            starts = audio.mel_window_starts(case["mel_frames"], case["fps"], kind == "inference")
            assert starts == case[kind], case["fps"]


def test_a_voice_shorter_than_a_window_has_one_window_at_inference() -> None:
    assert audio.mel_window_starts(5, 25, inference=True) == [0]
    assert audio.mel_window_starts(5, 25, inference=False) == []
    mel = np.ones((80, 5), np.float32)
    window = audio.mel_windows(mel, [0])[0]
    assert (window[:, :5] == 1).all() and (window[:, 5:] == audio.SILENCE).all()


def test_windows_hold_their_columns_and_silence_outside() -> None:
    mel = np.arange(80 * 40, dtype=np.float32).reshape(80, 40)
    windows = audio.mel_windows(mel, [-3, 10, 30, 400])
    assert windows.shape == (4, 80, 16) and windows.dtype == np.float32 and windows.flags.c_contiguous
    assert (windows[0, :, :3] == audio.SILENCE).all() and (windows[0, :, 3:] == mel[:, :13]).all()
    assert (windows[1] == mel[:, 10:26]).all()
    assert (windows[2, :, :10] == mel[:, 30:]).all() and (windows[2, :, 10:] == audio.SILENCE).all()
    assert (windows[3] == audio.SILENCE).all()
    assert audio.mel_windows(mel, []).shape == (0, 80, 16)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(22), 60])
def test_windows_at_frames_are_the_published_ones_and_can_come_in_batches(fps: Fraction | int) -> None:
    mel = np.random.default_rng(0).uniform(-4, 4, (80, 241)).astype(np.float32)
    starts = audio.mel_window_starts(241, fps, inference=False)
    whole = audio.mel_windows(mel, audio.frame_columns("mel", 0, 180, fps))
    np.testing.assert_array_equal(whole[: len(starts)], audio.mel_windows(mel, starts))
    batches = [audio.mel_windows(mel, audio.frame_columns("mel", first, 60, fps)) for first in (0, 60, 120)]
    np.testing.assert_array_equal(np.concatenate(batches), whole)


def test_a_window_may_start_before_its_frame() -> None:
    mel = np.random.default_rng(0).uniform(-4, 4, (80, 241)).astype(np.float32)
    early, straight = (
        audio.mel_windows(mel, audio.frame_columns("mel", 0, 20, Fraction(25), start)) for start in (-1, 0)
    )
    np.testing.assert_array_equal(early[1:], straight[:-1])
    assert (early[0, :, :4] == audio.SILENCE).all() and (early[0, :, 4:] == mel[:, :12]).all()


def test_speech_and_pause_are_told_apart() -> None:
    voice = np.concatenate((silence(0.6), noise(1, -20), silence(1), noise(1, -25), silence(1)))
    loud = audio.loud_frames(voice, Fraction(25), 150)
    assert loud.shape == (150,) and loud.dtype == bool
    assert not loud[:13].any() and loud[15:40].all()
    assert loud[13:15].all() and loud[40:42].all(), "two frames of hangover on each side"
    assert not loud[42:63].any() and loud[65:90].all()
    assert not loud[92:].any(), "the last frames lie after the voice"


@pytest.mark.parametrize("background_db", [-70, -50, -35])
def test_a_steady_background_is_no_speech(background_db: float) -> None:
    voice = np.concatenate((silence(1), noise(1, -15), silence(1))) + noise(3, background_db)
    loud = audio.loud_frames(voice, 25, 75)
    assert loud[25:50].all() and not loud[:22].any() and not loud[53:].any()


def test_level_is_judged_against_the_voice_itself_and_the_floor() -> None:
    assert audio.loud_frames(noise(1, -50), 25, 25).all(), "a faint voice that never pauses"
    assert not audio.loud_frames(noise(1, -65), 25, 25).any(), "hiss below the floor"
    assert not audio.loud_frames(silence(1) + np.float32(0.3), 25, 25).any(), "an offset (DC) is no sound"


def test_clicks_do_not_open_the_mouth_and_short_gaps_do_not_shut_it() -> None:
    click = np.concatenate((silence(1), noise(0.015, -6), silence(1)))
    assert not audio.loud_frames(np.concatenate((noise(1, -20), click)), 25, 75)[30:].any()
    syllables = np.concatenate([np.concatenate((noise(0.2, -20), silence(0.2))) for _ in range(5)])
    assert audio.loud_frames(syllables, 25, 45).all()


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), 25, 60, 240])
def test_every_frame_rate_finds_the_same_second(fps: Fraction | int) -> None:
    voice = np.concatenate((silence(1), noise(1, -20), silence(1)))
    loud = audio.loud_frames(voice, fps, int(3 * fps))
    assert loud.mean() == pytest.approx(1.16 / 3, abs=0.03)
    assert np.abs(np.diff(loud.astype(int))).sum() == 2


def test_loudness_survives_empty_and_short_voices() -> None:
    assert audio.loud_frames(silence(0), 25, 3).tolist() == [False] * 3
    assert audio.loud_frames(noise(0.005, -10), 25, 3).tolist() == [False] * 3
    assert audio.loud_frames(noise(1, -20), 25, 0).shape == (0,)


def test_levels_of_chunks_are_those_of_the_whole() -> None:
    voice = np.concatenate((noise(1.3, -20), silence(0.9), noise(0.505, -25)))
    chunks = [audio.levels_db(voice[k : k + 16000]) for k in range(0, len(voice), 16000)]
    np.testing.assert_array_equal(np.concatenate(chunks), audio.levels_db(voice))
    assert len(audio.levels_db(voice)) == 270 and audio.levels_db(silence(1)).max() == pytest.approx(-120)


@pytest.mark.slow
def test_ten_minutes_take_seconds_and_little_memory() -> None:
    waveform = np.tile(noise(10, -20), 60)
    audio.mel(waveform[:16000])  # loads librosa outside the measurement
    tracemalloc.start()
    began = time.perf_counter()
    mel = audio.mel(waveform)
    seconds = time.perf_counter() - began
    peak_mb = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert mel.shape == (80, 48001)
    assert seconds < 5
    assert peak_mb < 200, "the waveform itself is 37 MB"


def test_a_quiet_voice_is_brought_to_the_level_of_training_and_silence_is_not() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(32_000) / 16_000
    voice = (rng.normal(0, 0.1, 32_000) * np.clip(np.sin(2 * np.pi * 2 * t), 0, 1)).astype(np.float32)
    for gain in (1, 0.1, 0.01):
        np.testing.assert_allclose(audio.levelled(voice * np.float32(gain)), audio.levelled(voice), atol=1e-4)
    level_db = audio.levels_db(audio.levelled(voice))
    loud = level_db[level_db > level_db.max() - 25]
    assert 10 * np.log10(np.mean(10 ** (loud / 10))) == pytest.approx(audio.SPEECH_DB, abs=0.5)
    for still in (
        np.zeros(0),
        np.zeros(100),
        np.full(100, 0.5),
        np.zeros(16_000),
        rng.normal(0, 1e-4, 16_000),
        rng.normal(0, 5e-4, 32_000),
    ):
        still = still.astype(np.float32)
        np.testing.assert_array_equal(audio.levelled(still), still)

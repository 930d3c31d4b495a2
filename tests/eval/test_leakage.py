"""Leakage: a clip is re-voiced and heard with its old sound; and what every module of measures must keep."""

import importlib
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.metrics import frechet, identity, image, leakage, motion, retrieval, sync
from eval.metrics.base import Measure, MeasureError
from eval.metrics.leakage import MEASURES, evaluate, measured, voice_file
from eval.protocols import protocol
from eval.table import title
from lipsync.errors import InputError
from lipsync.media.reader import probe
from lipsync.options import Options
from tests.helpers.made import FLASHES, FlashEvaluator, flash_clip, lab_evaluator, talking_clip
from tests.helpers.media_maker import clicks, count_up, write_media

MODULES = ("sync", "image", "motion", "identity", "retrieval", "frechet", "leakage")


def found_by(name: str) -> dict:
    """What `evaluate` of a module gives for the smallest input that it takes."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (3, 96, 96, 3), np.uint8)
    if name == "sync":
        return sync.evaluate(*rng.standard_normal((2, 30, 8)).astype(np.float32))
    if name == "image":
        return image.evaluate(pictures, pictures)
    if name == "motion":
        return motion.evaluate(rng.random((5, 40, 2)) * 50, np.tile([0.0, 0, 100, 100], (5, 1)), None, 25)
    if name == "identity":
        return identity.evaluate(None, None)
    if name == "leakage":
        rows = sync.distance_rows(*rng.standard_normal((2, 30, 8)).astype(np.float32))
        return leakage.evaluate(sync.score(rows), sync.score(rows))
    if name == "retrieval":
        return retrieval.evaluate(rng.random((3, 3)))
    return frechet.evaluate(*(frechet.Statistics.of(rng.standard_normal((50, 4))) for _ in "ab"))


@pytest.mark.parametrize("name", MODULES)
def test_evaluate_gives_every_measure_within_its_range(name):
    found = found_by(name)
    for measure in importlib.import_module(f"eval.metrics.{name}").MEASURES:
        assert measure.name in found
        value = found[measure.name]
        assert value is None or measure.low <= value <= measure.high


@pytest.mark.parametrize("name", MODULES)
def test_measures_are_described(name):
    module = importlib.import_module(f"eval.metrics.{name}")
    assert module.__doc__ and callable(module.validate) and callable(module.evaluate)
    for measure in module.MEASURES:
        assert isinstance(measure, Measure) and measure.better in ("higher", "lower", "")
        assert measure.name.isidentifier() and measure.title and measure.source and isinstance(measure.unit, str)
        assert measure.low < measure.high
        assert title(measure, "syncnet-v2").count("(syncnet-v2)") == 0


def test_names_are_those_of_one_measure_only():
    names = [m.name for n in MODULES for m in importlib.import_module(f"eval.metrics.{n}").MEASURES]
    assert len(set(names)) == len(names)


def test_a_narrow_evaluator_stands_beside_its_numbers():
    lse_d = next(m for m in sync.MEASURES if m.name == "lse_d")
    assert title(lse_d, "syncnet-v2") == "LSE-D" and title(lse_d, "syncnet-lab") == "LSE-D (syncnet-lab)"


def test_leakage_by_hand():
    own = sync.SyncScore(2, 5.0, 3.0, 1.0, np.zeros(15), np.zeros(9))
    near, far, unsure = replace(own, offset=3), replace(own, offset=5, lse_c=1.0), replace(own, certainty=0.5)
    assert list(evaluate(own, far)) == [m.name for m in MEASURES]
    assert evaluate(own, far) == {"own_lse_c": 3, "leak_silence": 1, "leak_foreign": None, "leaks": 0}
    assert evaluate(own, unsure)["leaks"] == 0 and evaluate(own, far, near)["leaks"] == 1
    assert evaluate(unsure, near)["leaks"] is None
    with pytest.raises(MeasureError, match="7, 15"):
        evaluate(own, replace(own, curve=np.zeros(31)))


def test_silence_is_silent(tmp_path):
    with wave.open(str(voice_file(tmp_path / "silence.wav", np.zeros(24_000, np.float32)))) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (24_000, 16_000, 1)
        assert not any(file.readframes(24_000))


@pytest.mark.slow
def test_what_cannot_leak_is_a_sentence(tmp_path):
    mute = write_media(tmp_path / "mute.mp4", count_up(5))
    with pytest.raises(MeasureError, match="mute.mp4 has no sound of its own"):
        measured(mute, FlashEvaluator(), FLASHES)
    with pytest.raises(InputError, match="gone.mp4 does not exist"):
        measured(tmp_path / "gone.mp4", FlashEvaluator(), FLASHES)
    loud = write_media(tmp_path / "loud.mp4", count_up(5), sound=clicks(0.2, [0.1]))
    with pytest.raises(MeasureError, match="mute.mp4 holds no sound: a foreign voice"):
        measured(loud, FlashEvaluator(), FLASHES, mute)
    with pytest.raises(MeasureError, match="is silent"):
        measured(
            write_media(tmp_path / "still.mp4", count_up(30), sound=np.zeros(57_600, np.float32)),
            FlashEvaluator(),
            FLASHES,
        )


@pytest.fixture
def voiced(monkeypatch):
    """What each re-voicing was asked for; in place of a model the frames are copied, or those of another clip."""
    asked: list[tuple[Path, Path, Options]] = []
    made: dict[str, Path] = {}
    seconds: list[float] = []

    def sync_(video: Path, voice: Path, out: Path, options: Options) -> None:
        asked.append((video, voice, options))
        with wave.open(str(voice)) as file:
            seconds.append(file.getnframes() / file.getframerate())
        out.write_bytes(made.get(out.stem, video).read_bytes())

    monkeypatch.setattr(leakage.lipsync, "sync", sync_)
    return asked, made, seconds


@pytest.mark.slow
def test_a_copied_mouth_leaks_and_another_does_not(tmp_path, voiced):
    asked, made, seconds = voiced
    clip, other = flash_clip(tmp_path / "clip.mp4", late=2), flash_clip(tmp_path / "other.mp4", seed=7)
    found = measured(clip, FlashEvaluator(), FLASHES, model="a-model")
    assert list(found) == [m.name for m in MEASURES]
    assert found["leaks"] == 1 and found["leak_silence"] == found["own_lse_c"] > 1.5 and found["leak_foreign"] is None
    ((video, voice, options),) = asked
    assert video == clip and voice.name == "silence.wav" and not voice.exists()
    assert options.model == "a-model" and options.if_audio_shorter == "keep" and options.face == "all"
    made |= {"silence": other, "foreign": other}
    found = measured(clip, FlashEvaluator(), FLASHES, foreign=other)
    assert found["leaks"] == 0 and found["leak_silence"] == found["leak_foreign"] < 0.5 * found["own_lse_c"]
    short = talking_clip(tmp_path / "short.mp4", 20)
    seconds.clear()
    measured(clip, FlashEvaluator(), FLASHES, foreign=short)
    assert seconds == [pytest.approx(probe(clip).duration_s, abs=0.01)] * 2  # it is said again until the clip is over
    made["foreign"] = clip  # one voice that leaks is enough
    assert measured(clip, FlashEvaluator(), FLASHES, foreign=other)["leaks"] == 1


@pytest.mark.slow
def test_without_an_offset_of_its_own_nothing_can_be_said(tmp_path, voiced):
    clip = talking_clip(tmp_path / "talks.mp4", 40)
    found = measured(clip, FlashEvaluator(), FLASHES)
    assert found["leaks"] is None and found["leak_silence"] is not None


@pytest.mark.slow
def test_our_model_is_asked(tmp_path):
    """The whole way: the shipped model re-voices two seconds, the shipped evaluator hears the old voice."""
    clip = talking_clip(tmp_path / "talks.mp4", 50)
    voice = talking_clip(tmp_path / "other.mp4", 50, words="And now for something else: a window wide open.")
    found = measured(clip, lab_evaluator(), protocol("short"), voice)
    assert all(found[name] >= 0 for name in ("own_lse_c", "leak_silence", "leak_foreign"))
    assert found["leaks"] in (None, 0, 1)

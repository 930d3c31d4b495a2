"""What raters see: alike in everything but picture and sound, and signed where a machine made it."""

from fractions import Fraction

import numpy as np
import pyloudnorm
import pytest

from lipsync.errors import InputError
from lipsync.label import manifest
from lipsync.media.reader import FrameReader, probe, read_sound
from resynced.ballots import Stimulus
from resynced.stimuli import RATE, WITHHELD, Source, derive, gold, level, read_index
from resynced.studies import StudyError

from ..conftest import make_clip, make_voice


@pytest.fixture(scope="module")
def derived(tmp_path_factory):
    """A real clip, one made by a "system" of another size and rate, their gold and mismatched versions."""
    folder = tmp_path_factory.mktemp("stimuli")
    real = Source(make_clip(folder / "real.mp4", 60), synthetic=False)
    made = Source(make_clip(folder / "rival.mp4", 70, Fraction(30), (240, 320)), synthetic=True)
    other = Source(made.path, True, voice=make_voice(folder / "other.wav", 3))
    sources = {
        Stimulus("real", "i1"): real,
        Stimulus("rival", "i1"): made,
        Stimulus("real", "i1", "late"): gold(real),
        Stimulus("rival", "i1", "other"): other,
    }
    return folder / "out", derive(sources, folder / "out", height_px=240)


@pytest.mark.slow
def test_all_videos_of_an_item_have_one_size_length_rate_and_number_of_bytes(derived):
    _, found = derived
    infos = [probe(path) for path in found.values()]
    assert len({(i.width, i.height, i.fps, i.frames, i.codec) for i in infos}) == 1
    assert len({path.stat().st_size for path in found.values()}) == 1
    assert infos[0].fps == 25 and infos[0].height == 240


@pytest.mark.slow
def test_names_tags_and_labels_name_no_system(derived):
    folder, found = derived
    for stimulus, path in found.items():
        assert len(path.stem) == 32 and int(path.stem, 16) >= 0
        content = path.read_bytes()
        assert b"rival" not in content and b"real.mp4" not in content
        verdict = manifest.verify(path)
        if stimulus.system == "rival":
            assert verdict.status is manifest.Status.INTACT and verdict.model == WITHHELD
        else:
            assert verdict.status is manifest.Status.NOT_LABELLED
    assert read_index(folder) == found


@pytest.mark.slow
def test_sound_has_the_loudness_of_ebu_r128_and_gold_comes_half_a_second_late(derived):
    _, found = derived
    sounds = {key: read_sound(path, RATE)[0] for key, path in found.items()}
    for key, sound in sounds.items():
        assert pyloudnorm.Meter(RATE).integrated_loudness(sound.astype(float)) == pytest.approx(-23, abs=1.0), key
    begins = {key: np.flatnonzero(np.abs(sound) > 1e-2)[0] / RATE for key, sound in sounds.items()}
    late = begins[Stimulus("real", "i1", "late")] - begins[Stimulus("real", "i1")]
    assert late == pytest.approx(0.5, abs=0.03)
    own, other = sounds[Stimulus("rival", "i1")], sounds[Stimulus("rival", "i1", "other")]
    assert not np.allclose(own[:RATE], other[:RATE], atol=0.05)


@pytest.mark.slow
def test_the_same_stamp_stands_on_all_of_them(derived):
    _, found = derived
    corners = [next(FrameReader(probe(path)))[-24:, -80:].astype(int) for path in found.values()]
    letters = corners[0].min(2) > 180
    assert letters.sum() > 30
    for corner in corners:  # the picture behind the letters differs, the letters do not
        assert corner[letters].mean() - corner[~letters].mean() > 100


def test_the_limiter_keeps_peaks_under_the_ceiling_and_quiet_sound_whole():
    rng = np.random.default_rng(0)
    sound = (0.003 * rng.normal(size=2 * RATE)).astype(np.float32)
    sound[RATE : RATE + 40] = 0.9  # a click that the gain would drive far over full scale
    found = level(sound)
    assert np.abs(found).max() <= 10 ** (-1 / 20) + 1e-6
    assert np.corrcoef(found[: RATE // 2], sound[: RATE // 2])[0, 1] > 0.9999
    silence = np.zeros(RATE, np.float32)
    assert level(silence) is silence


@pytest.mark.slow
def test_deriving_again_replaces_what_was_there(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", 30)
    source = {Stimulus("a", "i"): Source(clip, False)}
    first = derive(source, tmp_path / "out", 96)
    second = derive(source, tmp_path / "out", 96)
    assert read_index(tmp_path / "out") == second and first != second
    assert sorted(p.name for p in (tmp_path / "out").glob("*.mp4")) == [p.name for p in second.values()]


@pytest.mark.slow
def test_what_cannot_be_shown_is_refused_with_a_sentence(tmp_path):
    clip = make_clip(tmp_path / "short.mp4", 10)
    with pytest.raises(InputError, match="in common"):
        derive({Stimulus("a", "i"): Source(clip, False)}, tmp_path / "out", 96)
    with pytest.raises(StudyError, match="one item at a time"):
        derive({Stimulus("a", "i"): Source(clip, False), Stimulus("a", "j"): Source(clip, False)}, tmp_path / "out")
    with pytest.raises(StudyError, match="nothing to derive"):
        derive({}, tmp_path / "out")
    with pytest.raises(StudyError, match="derive them first"):
        read_index(tmp_path / "none")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True

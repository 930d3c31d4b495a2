"""The meeting of a video with a voice of another length."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from lipsync.errors import InputError
from lipsync.media import timeline
from lipsync.media.timeline import SOUND_RATE, Spoken, Timeline, meeting, plan, sound
from lipsync.options import IF_AUDIO_LONGER, IF_AUDIO_SHORTER, Options
from tests.helpers.media_maker import click_times, clicks

FPS = Fraction(25)


def expand(segments):
    return [i for a, b in segments for i in (range(a, b) if a < b else range(a - 1, b - 1, -1))]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("pingpong", [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]),
        ("loop", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]),
        ("hold", [0, 1, 2, 3, 3, 3, 3, 3, 3, 3]),
        ("stretch", [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]),
        ("cut", [0, 1, 2, 3]),
    ],
)
def test_a_longer_voice(how, expected):
    made = plan(4, FPS, 0.4, Options(if_audio_longer=how))
    assert made.indices.tolist() == expected
    assert (made.first, made.stop) == (0, len(expected))


def test_a_shorter_voice_cuts_or_keeps_the_video():
    assert plan(10, FPS, 0.16, Options(if_audio_shorter="cut")).indices.tolist() == [0, 1, 2, 3]
    kept = plan(10, FPS, 0.16, Options())
    assert len(kept.indices) == 10 and (kept.first, kept.stop) == (0, 4)


@pytest.mark.parametrize(
    ("voice", "options", "said"),
    [
        (7.0, Options(), "pingpong"),
        (7.0, Options(if_audio_longer="cut"), "cut"),
        (7.0, Options(end=2.0), "cut"),
        (7.0, Options(start=2.0, if_audio_longer="loop"), "loop"),
        (3.0, Options(), "keep"),
        (3.0, Options(if_audio_shorter="cut"), "cut_video"),
        (3.0, Options(start=1.0, if_audio_shorter="cut"), "keep"),
        (4.95, Options(), ""),
    ],
)
def test_what_is_done_with_the_lengths_is_said_as_it_is_planned(voice, options, said):
    assert meeting(voice, 4.9, options) == said
    frames = len(plan(122, FPS, voice, options).indices)
    assert (frames > 124) == (said in ("pingpong", "loop")) and (frames < 120) == (said == "cut_video")


def test_a_part_keeps_the_rest_of_the_video():
    made = plan(100, FPS, 60.0, Options(start=1.0, end=2.0))
    assert made.indices.tolist() == list(range(100)) and (made.first, made.stop) == (25, 50)
    made = plan(100, FPS, 0.4, Options(start=1.0))
    assert len(made.indices) == 100 and (made.first, made.stop) == (25, 35)


def test_a_part_outside_the_video_is_an_error():
    with pytest.raises(InputError, match="outside the video"):
        plan(100, FPS, 1.0, Options(start=4.0))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"audio_delay_frames": -1_000_000}, "1000 frames at most"),
        ({"end": float("inf")}, "ends at a second of the video, not at inf"),
        ({"start": float("nan")}, "starts at a second"),
        ({"engine": " "}, "no engine ' '"),
        ({"face": "1.2.3,4@5"}, "not by '1.2.3,4@5'"),
        ({"face": "1,2@" + "9" * 400}, "chosen by largest"),
        ({"face": "9" * 5000}, "chosen by largest"),
    ],
)
def test_a_value_that_is_none_is_a_sentence(values, sentence):
    with pytest.raises(InputError, match=sentence):
        Options(**values)


def test_skipping_keeps_no_more_than_a_piece(monkeypatch):
    class Silence:
        def __init__(self, *_):
            pass

        def __next__(self):
            return np.zeros((SOUND_RATE, 2), np.float32)

    asked = []
    read = timeline.AudioCursor.read
    monkeypatch.setattr(timeline, "SoundReader", Silence)
    monkeypatch.setattr(timeline.AudioCursor, "read", lambda cursor, n: asked.append(n) or read(cursor, n))
    timeline.AudioCursor("voice.wav", skip=40 * SOUND_RATE + 7)
    assert sum(asked) == 40 * SOUND_RATE + 7 and max(asked) <= SOUND_RATE


def laid(path, voice, timeline, options):
    return np.concatenate(list(sound([Spoken(timeline, [voice], options)], FPS, path)))[:, 0]


def test_the_own_sound_begins_again_with_the_video(tmp_path):
    """A click half a second into a clip of 1.2 s, under a silent voice of three: it comes once a turn."""
    own, voice = tmp_path / "own.wav", tmp_path / "voice.wav"
    soundfile.write(own, clicks(1.2, [0.5]), SOUND_RATE)
    soundfile.write(voice, np.zeros(3 * SOUND_RATE, np.float32), SOUND_RATE)
    options = Options(if_audio_longer="loop", background=1.0)
    heard = laid(own, voice, plan(30, FPS, 3.0, options), options)
    assert len(heard) == 3 * SOUND_RATE
    np.testing.assert_allclose(click_times(heard, SOUND_RATE), [0.5, 1.7, 2.9], atol=0.001)


def test_the_voice_does_not_click_at_the_end_of_the_part(tmp_path):
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, np.full(3 * SOUND_RATE, 0.5, np.float32), SOUND_RATE, subtype="FLOAT")
    options = Options(start=0.4, end=1.2)
    heard = laid(None, voice, plan(60, FPS, 3.0, options), options)
    assert np.abs(np.diff(heard[SOUND_RATE:])).max() < 0.01
    assert heard[SOUND_RATE] == 0.5 and heard[int(1.21 * SOUND_RATE)] == 0


@given(
    frames=st.integers(1, 60),
    seconds=st.floats(0.01, 6),
    longer=st.sampled_from(IF_AUDIO_LONGER),
    shorter=st.sampled_from(IF_AUDIO_SHORTER),
    start=st.integers(0, 3),
    fps=st.sampled_from([Fraction(25), Fraction(24000, 1001), Fraction(22131, 1000)]),
)
def test_segments_give_the_frames_in_order(frames, seconds, longer, shorter, start, fps):
    if round(start * fps) >= frames:
        return
    made = plan(frames, fps, seconds, Options(if_audio_longer=longer, if_audio_shorter=shorter, start=float(start)))
    indices = made.indices.tolist()
    once = [i for n, i in enumerate(indices) if not n or indices[n - 1] != i]
    assert expand(made.segments()) == once
    assert min(indices) >= 0 and max(indices) < frames
    assert 0 <= made.first < made.stop <= len(indices)


def test_an_empty_timeline_reads_nothing():
    assert Timeline(np.zeros(0, np.int64), 0, 0).segments() == []
